"""Resizing and channels."""

import numpy as np
import pytest
import torch
from PIL import Image

from genconv.data.fit import CHUNK, fit, resize, to_channels
from genconv.errors import UserError


def pictures(*shape):
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_nothing_asked_nothing_done():
    x = pictures(2, 3, 4, 6)
    assert fit(x) is x


def test_grey_is_pillows_grey():
    x = pictures(CHUNK + 3, 3, 4, 4)
    rows = x.permute(0, 2, 3, 1).reshape(-1, 4, 3).numpy()
    expected = np.asarray(Image.fromarray(rows).convert("L")).reshape(-1, 4, 4)
    assert np.array_equal(to_channels(x, 1)[:, 0].numpy(), expected)


def test_grey_to_rgb_and_back_is_the_identity():
    x = torch.arange(256).to(torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_channels(to_channels(x, 3), 1), x)


@pytest.mark.parametrize(("have", "want"), [(3, 2), (2, 3), (4, 1)])
def test_other_channels_are_refused(have, want):
    with pytest.raises(UserError, match="channels"):
        to_channels(pictures(1, have, 4, 4), want)


def test_resize_crops_the_middle_square():
    x = pictures(2, 1, 4, 8)
    assert torch.equal(resize(x, 4), x[..., 2:6])


def test_resize_is_antialiased():
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 1, 64, 32)
    small = resize(stripes, 8).int()
    assert (small - 127).abs().max() <= 8


def test_resize_is_pillows_bicubic_within_a_level():
    x = pictures(1, 1, 40, 40)
    expected = np.asarray(Image.fromarray(x[0, 0].numpy()).resize((16, 16), Image.BICUBIC))
    assert np.abs(resize(x, 16)[0, 0].numpy().astype(int) - expected).max() <= 1


def test_videos_keep_their_frames():
    x = pictures(2, 3, 5, 8, 8)
    out = resize(x, 4)
    assert out.shape == (2, 3, 5, 4, 4)
    assert torch.equal(out[:, :, 1], resize(x[:, :, 1], 4))


def test_points_have_no_size():
    with pytest.raises(UserError, match="no height and width"):
        resize(torch.zeros(3, 2, dtype=torch.uint8), 4)
