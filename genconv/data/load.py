"""The one place where a name becomes a set of images."""

import difflib
import os
from dataclasses import replace
from pathlib import Path

from genconv.data.arrays import load_arrays
from genconv.data.clips import CLIPS, load_clips
from genconv.data.decode import open_image
from genconv.data.digits import load_digits
from genconv.data.fit import fit
from genconv.data.folder import load_folder
from genconv.data.image_set import Images
from genconv.data.imagenet32 import load_imagenet32
from genconv.data.shape_sets import load_shapes
from genconv.data.torchvision_sets import SETS, load_torchvision
from genconv.data.voxels import BODIES, holds_bodies, load_bodies, open_body
from genconv.errors import UserError

__all__ = ["load_images"]

# one file that is one image; a GIF is a clip
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
NAMES = ("digits", "shapes", "imagenet32", *(name.lower() for name in SETS))


def load_images(
    name: str,
    split: str = "train",
    *,
    root: str | Path = "data",
    size: int | None = None,
    channels: int | None = None,
) -> Images:
    """Load a set of images by name or path, whole, into memory.

    Args:
        name: `digits` or `shapes` (need nothing; `shapes:colour=red`, and what else
            `load_shapes` knows, is a part of it); `cifar10`, `cifar100`, `mnist`, `svhn` or any
            other classification set of torchvision (downloaded); `imagenet32` (its published
            batches); one image (PNG, JPEG, WEBP, BMP, TIFF); a folder of images, with class folders
            or without; bodies likewise, as `.binvox` or meshes, see `genconv.data.voxels`; an
            `.npz` with `images`, uint8 and channel last, see `load_arrays`; a folder of `train.npz`
            and `test.npz`; one clip (GIF, MP4, MOV, AVI, MKV, WEBM); or `clip:FOLDER`, whose images
            are the frames of one clip, or whose clips are a set, see `load_clips`.
        split: "train" or "test", and whatever else the set has ("all" for digits and shapes).
        root: where downloads, batches and the cache of decoded folders lie.
        size: crop the middle square and resize it to size x size; bodies become cubes of this side;
            None leaves images as they are.
        channels: 1 for grey, 3 for RGB; None leaves images as they are.

    Returns:
        uint8 images (N, C, *space), with labels and class names where the set has them.

    Raises:
        UserError: the name is not known, or the data are missing, torn, hostile or uneven.
    """
    key = name.lower()
    if key == "digits":
        images = load_digits(split)
    elif key == "shapes" or key.startswith("shapes:"):
        images = load_shapes(split, key.partition(":")[2])
    elif key.startswith("clip:"):
        return Images(load_clips(name[len("clip:") :], size=size, channels=channels))
    elif key == "imagenet32":
        images = load_imagenet32(split, root=root)
    elif Path(name).is_dir():
        packed = Path(name) / f"{split}.npz"
        if not packed.is_file():
            if found := sorted(file.stem for file in Path(name).glob("*.npz")):
                raise UserError(f"{name} has no {packed.name}; its splits: {', '.join(found)}")
            if holds_bodies(Path(name)):
                return load_bodies(name, split, root=root, size=size)
            return load_folder(name, split, root=root, size=size, channels=channels)
        images = load_arrays(packed)
    elif key.endswith(PICTURES) and Path(name).is_file():
        images = Images(open_image(name)[None])
    elif key.endswith(BODIES) and Path(name).is_file():
        return Images(open_body(name, size)[None])
    elif name.endswith(".npz"):
        images = load_arrays(name)
    elif key.endswith(CLIPS):
        return Images(load_clips(name, size=size, channels=channels))
    elif key in NAMES:
        return load_torchvision(key, split, root=root, size=size, channels=channels)
    else:
        raise _unknown(name)
    return replace(images, images=fit(images.images, size, channels))


def _unknown(name: str) -> UserError:
    if "/" in name or os.sep in name:
        return UserError(f"no such folder or file: {name}")
    close = difflib.get_close_matches(name.lower(), NAMES, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return UserError(
        f"no data called {name!r}{hint} known are {', '.join(NAMES)}, "
        "and the path of an image, a clip, a .binvox, a mesh, a folder of these or an .npz"
    )
