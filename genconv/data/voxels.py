"""Bodies of voxels: `.binvox` files, and meshes, which are voxelised."""

import io
import os
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genconv.data.folder import PICTURES, listing, load_once, split_folder
from genconv.data.image_set import Images
from genconv.errors import UserError, sentence

__all__ = ["BODIES", "distinct", "holds_bodies", "load_bodies", "open_body"]

MESHES = (".off", ".obj", ".ply", ".stl")
BODIES = (".binvox", *MESHES)
SIDE = 32
MAX_SIDE = 512
MAX_BYTES = 1 << 28


def open_body(path: str | Path, size: int | None = None) -> Tensor:
    """Read a `.binvox` file, or voxelise the surface of a mesh (OFF, OBJ, PLY, STL).

    Voxels are 0 (empty) or 255 (solid). Of a mesh the longest extent fills the grid, and the rest
    lies in the middle.

    Args:
        path: of the file.
        size: side of the grid, at least 2. A `.binvox` grid shrinks to it by whole blocks, and a
            block is solid where any of its voxels is; None leaves it as it is. A mesh gets 32 by
            default.

    Returns:
        uint8 (1, X, Y, Z), in the file's own axes.

    Raises:
        UserError: the file is missing, torn, hostile or of another format, it does not shrink to
            that size, or it is a mesh and trimesh is not installed.
    """
    path = Path(path)
    if size is not None and not 2 <= size <= MAX_SIDE:
        raise UserError(f"the side of a body is 2 to {MAX_SIDE} voxels, not {size}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MB")
        if path.suffix.lower() == ".binvox":
            solid = _shrunk(_binvox(data), size)
        else:
            solid = _voxelised(data, path.suffix.lower()[1:], size or SIDE)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"cannot read {path}: {reason}; mend or remove it") from error
    return torch.from_numpy(solid.astype(np.uint8) * 255)[None]


def load_bodies(
    folder: str | Path, split: str = "train", *, root: str | Path = "data", size: int | None = None
) -> Images:
    """Load a folder of bodies, with class folders or without.

    It may be laid out as in `genconv.data.folder.load_folder`, or as ModelNet, FOLDER/CLASS/SPLIT.
    Bodies are voxelised once, and cached under `root/cache`.

    Args:
        folder: where the files lie.
        split: which part of it.
        root: folder of the cache.
        size: see `open_body`.

    Returns:
        uint8 (N, 1, X, Y, Z), 0 or 255; labels number the class folders in the order of their
        names.

    Raises:
        UserError: see `open_body`; or there is no such split, or sides differ.
    """
    folder = Path(folder)
    classes = sorted(d for d in folder.iterdir() if (d / split).is_dir() and d.name[0] != ".")
    if classes and not (folder / split).is_dir():
        base, groups = folder, [listing(d / split, BODIES)[0] for d in classes]
        files = [file for group in groups for file in group]
        counts = torch.tensor([len(group) for group in groups])
        labels = torch.arange(len(groups)).repeat_interleave(counts)
        names = tuple(d.name for d in classes)
    else:
        base = split_folder(folder, split)
        files, labels, names = listing(base, BODIES)

    def read(files: list[Path]) -> Tensor:
        bodies = [open_body(file, size) for file in files]
        for file, body in zip(files, bodies, strict=True):
            if body.shape != bodies[0].shape:
                sides, first = ("x".join(map(str, b.shape[1:])) for b in (body, bodies[0]))
                raise UserError(
                    f"{file} is {sides} but {files[0]} is {first}; give a size to shrink them to"
                )
        return torch.stack(bodies)

    return Images(load_once(base, files, ["bodies", size], root, read), labels, names)


def holds_bodies(folder: Path) -> bool:
    """Say whether the first picture or body that is found below a folder is a body."""
    for _, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith((*BODIES, *PICTURES)):
                return name.lower().endswith(BODIES)
    return False


def distinct(data: Images) -> Images:
    """Return the set without what came before in it, value for value."""
    flat = data.images.flatten(1).numpy()
    _, first = np.unique(flat, axis=0, return_index=True)
    kept = torch.from_numpy(np.sort(first))
    labels = None if data.labels is None else data.labels[kept]
    return Images(data.images[kept], labels, data.classes)


def _binvox(data: bytes) -> np.ndarray:
    """Decode https://www.patrickmin.com/binvox/binvox.html into bool (X, Y, Z)."""
    head = re.match(rb"#binvox 1\s*\n(?:[^\n]{0,200}\n){0,20}?data\r?\n", data)
    sides = re.search(rb"\ndim +(\d{1,4}) +(\d{1,4}) +(\d{1,4})\s*\n", head[0]) if head else None
    if head is None or sides is None:
        raise ValueError("it does not begin as a .binvox file of version 1 does")
    d, w, h = (int(side) for side in sides.groups())
    total = d * w * h
    if not 0 < min(d, w, h) <= max(d, w, h) <= MAX_SIDE:
        raise ValueError(f"it has {d}x{w}x{h} voxels, where sides are 1 to {MAX_SIDE}")
    runs = np.frombuffer(data, np.uint8, offset=head.end())
    if len(runs) % 2:
        raise ValueError("it ends in the middle of a run")
    values, counts = runs[::2], runs[1::2]
    if counts.sum(dtype=np.int64) != total:
        raise ValueError(f"its runs hold {counts.sum(dtype=np.int64):,} voxels, not {total:,}")
    # y runs fastest in the file, then z
    return np.repeat(values > 0, counts).reshape(d, w, h).transpose(0, 2, 1)


def _shrunk(solid: np.ndarray, size: int | None) -> np.ndarray:
    if size is None or solid.shape == (size,) * 3:
        return solid
    factor = solid.shape[0] // size
    if factor < 1 or solid.shape != (size * factor,) * 3:
        raise ValueError(f"its grid of {'x'.join(map(str, solid.shape))} does not shrink to {size}")
    return solid.reshape(size, factor, size, factor, size, factor).any((1, 3, 5))


def _voxelised(data: bytes, kind: str, size: int) -> np.ndarray:
    try:
        import trimesh
    except ImportError as error:
        raise UserError("meshes need trimesh: pip install 'genconv[voxels]'") from error
    try:
        # from memory, so that a mesh cannot name other files
        mesh = trimesh.load_mesh(io.BytesIO(data), file_type=kind)
        longest = float(mesh.extents.max())
        if not 0 < longest < np.inf:
            raise ValueError("its vertices span nothing")
        # in units of a voxel, whose middles have whole coordinates
        mesh.apply_translation(-mesh.bounds[0])
        mesh.apply_scale((size - 1) / longest)
        mesh.apply_translation(np.floor((size - 1 - mesh.extents) / 2))
        points = mesh.voxelized(1.0).points
    # hostile or torn text makes its readers raise nearly anything
    except Exception as error:
        raise ValueError(sentence(error) or type(error).__name__) from error
    place = np.rint(points).astype(int).clip(0, size - 1)
    solid = np.zeros((size,) * 3, bool)
    solid[tuple(place.T)] = True
    return solid
