"""Chains on a canvas larger than the data."""

import pytest
import torch

from genconv.energy import GenerativeConvNet
from genconv.errors import UserError
from genconv.sampling import Chain
from genconv.training import ContrastiveDivergence
from genconv.training.canvas import canvas_shape, draw_tiles


@pytest.mark.parametrize("space", [(12,), (8, 12), (4, 8, 12)])
def test_tiles_lie_side_by_side_and_each_comes_once(space):
    x = torch.arange(2 * torch.tensor(space).prod()).view(2, 1, *space)
    sides = [4] * len(space)
    tiles = draw_tiles(x, x.numel() // 4 ** len(space), sides, torch.Generator().manual_seed(0))
    assert sorted(tiles.flatten().tolist()) == list(range(x.numel()))
    for tile in tiles:
        corner = (tile.flatten()[0] == x).nonzero()[0].tolist()
        assert all(place % 4 == 0 for place in corner[2:])
        place = tuple(slice(first, first + 4) for first in corner[2:])
        assert torch.equal(tile[0], x[(corner[0], 0, *place)])


def test_tiles_come_again_when_all_were_drawn():
    x = torch.arange(4.0).view(1, 1, 2, 2)
    drawn = draw_tiles(x, 6, [1, 1], torch.Generator().manual_seed(0)).flatten().tolist()
    assert sorted(drawn[:4]) == [0, 1, 2, 3]
    assert drawn[4:] == drawn[:2]


@pytest.mark.parametrize("canvas", [20, [16], [16, 12], [16, 8, 16], 0])
def test_a_canvas_that_tiles_do_not_fill_is_refused(canvas):
    assert canvas_shape((3, 8, 8), [16, 24]) == (3, 16, 24)
    with pytest.raises(UserError, match=r"canvas of .* cannot be cut into tiles of 8x8"):
        canvas_shape((3, 8, 8), canvas)


def test_a_canvas_needs_persistent_chains():
    with pytest.raises(UserError, match="start: buffer"):
        ContrastiveDivergence(GenerativeConvNet(), start="noise", canvas=16)


def test_data_are_compared_with_tiles_of_the_chains_that_go_on():
    torch.manual_seed(0)
    energy = GenerativeConvNet(widths=(4, 8))
    chain = Chain(steps=5, step_size=0.01, temperature=0.01, start="uniform")
    cd = ContrastiveDivergence(energy, chain, k=2, canvas=[16, 8], buffer_size=2, restart=0.0)
    cd.generator = torch.Generator().manual_seed(0)
    cd.log = cd.log_dict = lambda *args, **kwargs: None
    x = torch.rand(4, 1, 8, 8)
    negatives = cd._negatives(x, None)
    assert negatives.shape == x.shape
    assert cd.buffer.images.shape == (2, 1, 16, 8)
    assert cd.buffer.age.tolist() == [1, 1]
    kept = torch.cat((cd.buffer.images / 127.5 - 1).split(8, 2))
    # what is kept has 256 levels, and stays in the range
    near = [(n.clamp(-1, 1) - kept).flatten(1).abs().amax(1).min() < 0.01 for n in negatives]
    assert all(near)
