"""Where the published weights of the Inception network come from."""

import hashlib
import pickle
import zipfile
from pathlib import Path
from urllib.request import urlopen

import torch

from genconv.errors import UserError
from genconv.eval.inception import Inception
from genconv.files import replacing
from genconv.progress import progress

__all__ = ["SHA256", "load_inception", "sha256_of"]

# the second name is pytorch-fid's, for the same bytes
NAMES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{NAMES[0]}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
PIECE = 1 << 20
PATIENCE = 20


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        UserError: it cannot be read.
    """
    sha = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                sha.update(piece)
        return sha.hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def find_weights() -> Path:
    """Return the published file: from torch.hub's folder, into which it is downloaded once.

    Raises:
        UserError: it is not there and cannot be had.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for path in (folder / name for name in NAMES):
        if path.is_file() and sha256_of(path) == SHA256:
            return path
    path = folder / NAMES[0]
    try:
        _download(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the Inception network's weights are not in {folder} and cannot be downloaded "
            f"({error}); copy {URL} to that folder, or name the file by --weights, or judge by "
            "another network with --features"
        ) from error
    return path


def load_inception(path: str | Path | None = None) -> Inception:
    """Load the network that FID, IS and KID are defined by, onto the CPU and in eval mode.

    Args:
        path: a file of weights under the names of the PyTorch port; by default the published one,
            which is looked for in torch.hub's folder and downloaded there if it is not.

    Raises:
        UserError: the weights cannot be had, are torn, or are another network's.
    """
    path = find_weights() if path is None else Path(path)
    if not path.is_file():
        raise UserError(f"no such file: {path}; it should hold the weights of {URL}")
    network = Inception()
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(weights)
    except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path} is broken, or holds more than tensors; it was not read") from error
    except (RuntimeError, TypeError, AttributeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{path} does not fit the Inception network of 2015: {first}") from error
    return network.requires_grad_(False).eval()


def _download(path: Path) -> None:
    sha = hashlib.sha256()
    # the folder is made and tried before the network is
    with replacing(path) as part, part.open("wb") as file, urlopen(URL, timeout=PATIENCE) as source:
        total = -(-int(source.headers.get("Content-Length", 0)) // PIECE) or None
        pieces = iter(lambda: source.read(PIECE), b"")
        for piece in progress(pieces, "downloading the Inception network", total):
            sha.update(piece)
            file.write(piece)
        if sha.hexdigest() != SHA256:
            raise ValueError("what came has not the published checksum")
