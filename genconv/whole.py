"""Files of a run's weights: which is the newest, whether it is whole, and what it may claim."""

import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from genconv.errors import UserError

__all__ = ["LAST", "PREVIOUS", "at_most", "broken", "newest"]

log = logging.getLogger(__name__)

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


def newest(folder: Path) -> Path:
    """Return the path of a run's last checkpoint, or of the one before, if the last is broken.

    Args:
        folder: `checkpoints` of a run.

    Raises:
        UserError: neither is there and whole.
    """
    last, previous = folder / LAST, folder / PREVIOUS
    if not (fault := broken(last)):
        return last
    if broken(previous):
        raise UserError(
            f"{last} {fault}" + (f", and {previous} is no better" if previous.exists() else "")
        )
    log.warning("%s %s; taking %s, which was saved before it", last, fault, previous)
    return previous


def broken(path: Path) -> str:
    """Say what is wrong with the bytes of a checkpoint, by the checksums within; "" if nothing."""
    if not path.is_file():
        return "does not exist"
    try:
        with zipfile.ZipFile(path) as archive:
            # nothing is compressed in what torch writes, so that no member can be a bomb
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                return "is damaged: it claims more bytes than it holds"
            member = archive.testzip()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    # hostile or torn bytes make zipfile raise nearly anything
    except Exception:
        return "is torn"
    return f"is damaged: the checksum of {member} is wrong" if member else ""


@contextmanager
def at_most(weights: int) -> Iterator[None]:
    """Stop the building of a network that would have many more parameters than its file holds.

    A stranger's file may describe a network of a billion layers, which would take for ever.

    Args:
        weights: number of tensors in the file.

    Raises:
        UserError: within the block, as soon as there are too many.
    """
    # reparametrised layers register a weight more than once
    left = 16 + 4 * weights

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise UserError(f"it describes many more layers than its {weights} weights are for")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
