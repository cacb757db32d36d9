"""Parts of the shapes by attribute, their labels, and the checker that looks at pixels."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from genconv.data import load_images
from genconv.data.fit import fit
from genconv.data.shape_sets import ATTRIBUTES, clean, has
from genconv.data.shapes import COLOURS, SHAPES, split_attributes
from genconv.errors import UserError

TABLE = split_attributes("test")
UNSEEN = [("red", "circle"), ("green", "square"), ("blue", "triangle")]
RED, CIRCLE = TABLE.colour == 0, TABLE.shape == 0


def test_an_attribute_leaves_out_all_others_and_nothing_else():
    everything = load_images("shapes", "test").images
    for name, rows in [
        ("colour=red", RED),
        ("shape=circle", CIRCLE),
        ("side=left", TABLE.x < 16),
        ("colour=red,shape=circle", RED & CIRCLE),
        ("without=red-circle", ~(RED & CIRCLE)),
        ("without=red,without=circle", ~RED & ~CIRCLE),
    ]:
        assert torch.equal(load_images(f"shapes:{name}", "test").images, everything[rows]), name


def test_labels_are_of_the_kind_asked_for():
    for kind, values, names in [
        ("colour", TABLE.colour, tuple(COLOURS)),
        ("shape", TABLE.shape, SHAPES),
        ("side", (TABLE.x >= 16).long(), ("left", "right")),
    ]:
        images = load_images(f"shapes:label={kind},shape=square", "test")
        assert torch.equal(images.labels, values[TABLE.shape == 1])
        assert images.classes == names


def test_one_attribute_of_each_image_is_its_label():
    images = load_images("shapes:label=attribute,without=red-circle", "test")
    assert images.classes == ATTRIBUTES
    kept = ~(RED & CIRCLE)
    values = torch.stack([TABLE.shape, TABLE.colour + 3, (TABLE.x >= 16) + 9], 1)[kept]
    kinds = (images.labels[:, None] == values).nonzero()[:, 1]
    assert len(kinds) == len(images)
    assert kinds.bincount().min() > 550
    again = load_images("shapes:label=attribute,without=red-circle", "test")
    assert torch.equal(again.labels, images.labels)


@pytest.mark.parametrize("side", [16, 32])
def test_the_checker_sees_what_was_drawn_at_both_sizes(side):
    images = fit(load_images("shapes", "test").images[:600], side, None)
    for i, name in enumerate((*SHAPES, *COLOURS)):
        truth = (TABLE.shape == i) if i < 3 else (TABLE.colour == i - 3)
        assert (has(images, name) != truth[:600]).sum() <= (side < 32) * 4, name
    assert (has(images, "red", "circle") != (RED & CIRCLE)[:600]).sum() <= (side < 32) * 4
    clear = (TABLE.x[:600] - 16).abs() > 0.5
    assert torch.equal(has(images, "left")[clear], (TABLE.x[:600] < 16)[clear])


def test_the_checker_says_no_to_another_colour_and_to_an_empty_image():
    assert not has(torch.full((2, 3, 32, 32), 48, dtype=torch.uint8), "red", "circle").any()


@pytest.mark.parametrize("side", [16, 32])
def test_drawings_are_clean_and_what_is_not_one_is_none(side):
    images = fit(load_images("shapes", "test").images[:600], side)
    assert clean(images).double().mean() >= 0.99
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    noisy = (images + 20 * noise).round().clamp(0, 255).to(torch.uint8)
    assert not clean(noisy).any()
    # a shape's shadow, two shapes, and none
    assert not clean(images.flip(3) // 2 + images // 2)[(TABLE.x[:600] - 16).abs() > 2].any()
    assert not clean(torch.full_like(images, 48)).any()


def test_overdrawn_shapes_have_their_attributes_and_are_not_clean():
    # samples of too large weights, a row each: circles with corners, squares that are stars,
    # triangles with arms
    with Image.open(Path(__file__).with_name("overdrawn_shapes.png")) as picture:
        rows = pil_to_tensor(picture).unfold(1, 16, 16).unfold(2, 16, 16).permute(1, 2, 0, 3, 4)
    for row, names in zip(rows, UNSEEN, strict=True):
        assert has(row, *names).double().mean() > 0.8
        assert not clean(row).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("color=red", "'color=red' is not understood.*colour=red"),
        ("colour=pink", "'colour=pink' is not understood"),
        ("label=size", "label=shape"),
        ("without=red-pink", "without=A-B"),
        ("colour=red,colour=blue", "leaves no image of 'test'"),
    ],
)
def test_what_is_not_understood_is_named(options, message):
    with pytest.raises(UserError, match=message):
        load_images(f"shapes:{options}", "test")
