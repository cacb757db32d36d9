"""The Lightning side of data: batches gathered on the device, resumable at any step."""

import warnings
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor, distributed

from genconv.data.augment import binarise, crop, dequantise, flip
from genconv.data.image_set import Images
from genconv.data.load import load_images
from genconv.data.order import BatchOrder, IndexLoader
from genconv.errors import UserError
from genconv.images import from_uint8
from genconv.seeds import put_back, stream

__all__ = ["ImageData"]


class ImageData(LightningDataModule):
    """Training batches of any set that `load_images` knows.

    The whole set lies as uint8 on the training device (on the CPU, where it takes more than a
    quarter of the GPU's free memory); the loader yields indices, and a batch is gathered, cropped,
    flipped and dequantised where it is used. Batch b of a run is a pure function of (seed, b), so a
    run resumed from a checkpoint, also one in mid-epoch, sees what the uninterrupted run would
    have. Under DDP give the trainer `use_distributed_sampler=False`: the ranks share the set out
    here.

    A batch is (x, y): x float32 (N, C, *space) in [-1, 1], half a grey level wider when
    dequantised, -1 and 1 only when binarised; y int64 (N,), or None where the set has no labels.

    Args:
        name: set name (digits, shapes, cifar10, imagenet32, ...), or the path of an image, an image
            folder or an .npz; see `load_images`.
        root: folder of downloads and caches.
        split: which part of the set to train on.
        batch_size: images per batch on every device; a smaller set is one batch.
        size: crop to the middle square and resize to size x size; null keeps the size.
        channels: 1 for grey, 3 for RGB; null keeps the channels.
        crop: train on windows of this side, cut at random; one number for every axis of the space,
            or one for each, as [16, 64, 64] for video; null takes whole images.
        repeat: times that an image comes in an epoch. One image fills a batch of 8 if it comes 8
            times, each time with a crop and noise of its own.
        flip: mirror images left to right at random; not for digits.
        dequantise: add uniform noise within half a grey level, so that the density is finite; not
            to binarised images.
        binarise: make pixels black (-1) or white (1): by `threshold`, or at every visit anew by a
            `sample` that is white with the probability of the grey level; null leaves them grey.
        workers: loader processes; they carry only indices, so 0 is the fastest.
        seed: of order, flips and noise; at least 0.

    Attributes:
        served: number of batches given to training since the run began.
    """

    def __init__(
        self,
        name: str = "digits",
        root: str = "data",
        split: str = "train",
        batch_size: int = 128,
        size: int | None = None,
        channels: int | None = None,
        crop: int | list[int] | None = None,
        repeat: int = 1,
        flip: bool = False,
        dequantise: bool = True,
        binarise: Literal["threshold", "sample"] | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.name, self.root, self.split = name, root, split
        self.batch_size, self.size, self.channels = batch_size, size, channels
        self.crop, self.repeat = crop, repeat
        self.flip, self.dequantise, self.binarise = flip, dequantise, binarise
        self.workers, self.seed = workers, seed
        self.served = 0
        self._data: Images | None = None
        self._images: Tensor | None = None
        self._labels: Tensor | None = None
        self._placed: torch.device | None = None
        self._generator: torch.Generator | None = None
        self._generator_state: Tensor | None = None

    @property
    def data(self) -> Images:
        """The set, on the CPU, loaded when first asked for."""
        if self._data is None:
            self._data = load_images(
                self.name, self.split, root=self.root, size=self.size, channels=self.channels
            )
        return self._data

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (C, *space) of one image of a batch.

        Raises:
            UserError: no such window can be cut out of the images.
        """
        c, *space = self.data.shape
        if self.crop is None:
            return c, *space
        sides = [self.crop] * len(space) if isinstance(self.crop, int) else self.crop
        fits = [1 <= side <= extent for side, extent in zip(sides, space, strict=False)]
        if len(sides) != len(space) or not all(fits):
            raise UserError(
                f"a crop of {'x'.join(map(str, sides))} cannot be cut out of images of "
                f"{'x'.join(map(str, space))} from {self.name}; change --data.crop or --data.size"
            )
        return c, *sides

    @property
    def classes(self) -> int | None:
        """Number of classes, or None where the set has no labels."""
        if self.data.labels is None:
            return None
        return len(self.data.classes or ()) or int(self.data.labels.max()) + 1

    def prepare_data(self) -> None:
        """Load the set on one process, so that downloads and caches are written once.

        Raises:
            UserError: see `load_images`; or `repeat` is below 1.
        """
        if self.repeat < 1:
            raise UserError(f"repeat must be at least 1, not {self.repeat}")
        _ = self.data

    def setup(self, stage: str | None = None) -> None:
        """Load the set on every process; a new trainer begins at batch 0."""
        _ = self.data
        if self.trainer is not None and self.trainer.global_step == 0:
            self.served, self._generator, self._generator_state = 0, None, None

    def train_dataloader(self) -> IndexLoader:
        """Give the loader of this rank's batches, from batch `served` on."""
        # Lightning cannot know that these batches are indices
        warnings.filterwarnings("ignore", "The 'train_dataloader' does not have many workers")
        order = BatchOrder(
            len(self.data) * self.repeat,
            self.batch_size,
            self.seed,
            served=lambda: self.served,
            rank=self._rank,
            world=self._world,
        )
        return IndexLoader(order, self.workers)

    def on_after_batch_transfer(
        self, batch: Tensor, dataloader_idx: int
    ) -> tuple[Tensor, Tensor | None]:
        """Gather, crop, flip and dequantise or binarise a batch.

        Args:
            batch: int64 (N,) indices, on the device where the batch is wanted.
            dataloader_idx: Lightning's; there is one loader.

        Returns:
            x and y as the class describes them.
        """
        images, labels, generator = self._place(batch.device)
        batch = batch % len(images)
        x = images[batch.to(images.device)].to(batch.device)
        if self.crop is not None:
            x = crop(x, self.shape[1:], generator)
        if self.flip:
            x = flip(x, generator)
        if self.binarise:
            x = binarise(x, self.binarise, generator)
        else:
            x = dequantise(x, generator) if self.dequantise else from_uint8(x)
        y = None if labels is None else labels[batch]
        if self.trainer is not None and self.trainer.training:
            self.served += 1
        return x, y

    def state_dict(self) -> dict[str, Any]:
        """Give `served` and the generator states of all ranks; every rank must call this."""
        state = self._generator_state
        if self._generator is not None:
            state = self._generator.get_state()
        states = [state]
        if self._world > 1:
            states = [None] * self._world
            distributed.all_gather_object(states, state)
        return {"served": self.served, "generators": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken.

        With another number of ranks, or another kind of device, flips and noise begin a new
        stream; the order of the set then follows the new number.
        """
        self.served = state["served"]
        states = state["generators"]
        self._generator = None
        self._generator_state = states[self._rank] if len(states) == self._world else None

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    @property
    def _world(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    def _place(self, device: torch.device) -> tuple[Tensor, Tensor | None, torch.Generator]:
        """Give images, on `device` if they fit, labels and generator, on `device` always."""
        if self._generator is None or self._generator.device.type != device.type:
            self._generator = stream(self.seed, "data", self._rank, device=device)
            if self._generator_state is not None:
                put_back(self._generator, self._generator_state)
                self._generator_state = None
        if self._images is None or self._placed != device:
            self._placed = device
            self._images, self._labels = self.data.images, self.data.labels
            if self._labels is not None:
                self._labels = self._labels.to(device)
            if device.type == "cuda":
                free, _ = torch.cuda.mem_get_info(device)
                if self._images.nbytes <= free / 4:
                    self._images = self._images.to(device)
        return self._images, self._labels, self._generator
