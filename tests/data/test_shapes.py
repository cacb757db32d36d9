"""Shapes with known attributes."""

import torch

from genconv.data import load_images
from genconv.data.shapes import COLOURS, SHAPES, draw, draw_shapes, measure, split_attributes


def test_the_set_is_what_its_table_says_and_the_same_every_time():
    images, table = load_images("shapes", "test"), split_attributes("test")
    assert images.shape == (3, 32, 32)
    assert len(images) == len(table) == 2000
    assert images.classes == SHAPES
    assert torch.equal(images.labels, table.shape)
    assert torch.equal(images.images, draw(table))
    assert torch.equal(images.images, load_images("shapes", "test").images)


def test_splits_differ_and_all_is_both():
    train, test, both = (split_attributes(split) for split in ("train", "test", "all"))
    assert len(train) == 20_000
    assert not torch.equal(train.x[:2000], test.x)
    assert torch.equal(both.x, torch.cat([train.x, test.x]))


def test_attributes_are_read_back_from_the_pixels():
    images, drawn = draw_shapes(600, torch.Generator().manual_seed(5))
    read = measure(images)
    assert torch.equal(read.shape, drawn.shape)
    assert torch.equal(read.colour, drawn.colour)
    assert torch.equal(read.background, drawn.background)
    for name in ("x", "y", "size"):
        assert (getattr(read, name) - getattr(drawn, name)).abs().max() < 0.5


def test_every_attribute_takes_all_its_values_independently_of_the_others():
    table = split_attributes("train")
    pairs = table.shape * len(COLOURS) + table.colour
    assert pairs.bincount().min() > 900
    numbers = torch.stack([table.shape, table.colour, table.size, table.x, table.y])
    correlation = torch.corrcoef(numbers.float()) - torch.eye(5)
    assert correlation.abs().max() < 0.04
    assert table.size.min() >= 5
    assert table.size.max() <= 10


def test_no_shape_is_cut_off():
    images = load_images("shapes", "test").images
    edge = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], 2)
    assert edge.amax((1, 2)).max() <= 56
