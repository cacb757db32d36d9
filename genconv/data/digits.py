"""The 1,797 handwritten digits of 8x8 pixels that scikit-learn carries."""

import torch

from genconv.data.image_set import Images, check_split

__all__ = ["load_digits"]


def load_digits(split: str = "train") -> Images:
    """Load the digits; their 17 levels v = 0..16 become round(255 v / 16).

    Args:
        split: "test" is every 6th image (300), "train" the others (1,497), "all" both.

    Returns:
        images (N, 1, 8, 8), labels 0..9.
    """
    check_split("digits", split, ("train", "test", "all"))
    from sklearn import datasets

    digits = datasets.load_digits()
    images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(digits.target).long()
    test = torch.arange(len(images)) % 6 == 0
    keep = {"train": ~test, "test": test, "all": torch.ones_like(test)}[split]
    return Images(images[keep], labels[keep], tuple("0123456789"))
