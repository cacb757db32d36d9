"""One way to name data everywhere: `load_images(name)` to read, `ImageData(name)` to train on."""

from typing import TYPE_CHECKING, Any

from genconv.data.image_set import Images
from genconv.data.load import load_images

if TYPE_CHECKING:
    from genconv.data.module import ImageData

__all__ = ["ImageData", "Images", "load_images"]


def __getattr__(name: str) -> Any:
    # Lightning takes seconds to import, and whoever only reads images does not need it
    if name == "ImageData":
        from genconv.data.module import ImageData

        return ImageData
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
