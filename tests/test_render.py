"""Bodies of voxels as pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from genconv.errors import UserError
from genconv.render import VIEWS, check_bodies, faces, plot_voxels

VIEW = (35.0, 25.0)


def area(corners):
    """The shoelace formula, (F,)."""
    x, y = corners[..., 0], corners[..., 1]
    return abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1)) / 2


@pytest.mark.parametrize("view", [VIEW, *VIEWS, (200.0, -30.0)])
def test_a_cube_shows_three_faces_as_large_as_they_are_turned(view):
    a, e = np.radians(view)
    towards = [np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]
    corners, axes = faces(np.ones((1, 1, 1), bool), *view)
    assert sorted(axes) == [0, 1, 2]
    assert area(corners)[np.argsort(axes)] == pytest.approx(np.abs(towards))


def test_hidden_faces_are_left_out():
    corners, axes = faces(np.ones((3, 4, 5), bool), *VIEW)
    assert np.bincount(axes).tolist() == [4 * 5, 3 * 5, 3 * 4]
    assert faces(np.zeros((3, 4, 5), bool), *VIEW)[0].shape == (0, 4, 2)
    # the viewer is on the side of +x: at azimuth 35 the face at x = +1/2 is the one that is drawn
    solid = np.zeros((3, 1, 1), bool)
    solid[2] = True
    corners, axes = faces(solid, *VIEW)
    middle = corners[axes == 0].mean((0, 1))
    a, e = np.radians(VIEW)
    assert middle == pytest.approx([-np.sin(a) * 1.5, -np.sin(e) * np.cos(a) * 1.5])


def test_what_is_in_front_is_painted_last():
    rng = np.random.default_rng(0)
    solid = rng.random((5, 5, 5)) < 0.3
    corners, _ = faces(solid, *VIEW)
    # paint cells of the picture by their middle, and compare with rays that go through the grid
    a, e = np.radians(VIEW)
    towards = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    up = np.cross(towards, right)
    for u, v in rng.uniform(-2.5, 2.5, (60, 2)):
        edges = np.roll(corners, -1, 1) - corners
        to = np.array([u, v]) - corners
        side = edges[..., 0] * to[..., 1] - edges[..., 1] * to[..., 0]
        hit = np.flatnonzero((side > 0).all(1) | (side < 0).all(1))
        ray = u * right + v * up + np.linspace(6, -6, 6000)[:, None] * towards
        cell = np.rint(ray + 2).astype(int)
        inside = ((cell >= 0) & (cell < 5)).all(1)
        through = [tuple(c) for c in cell[inside] if solid[tuple(c)]]
        assert bool(len(hit)) == bool(through)
        if through:
            middle = (np.array(through[0]) - 2) @ np.stack([right, up], 1)
            # the last painted face belongs to the first solid voxel on the way
            assert np.abs(corners[hit[-1]].mean(0) - middle).max() < 0.5


def test_a_picture_shows_what_is_solid(tmp_path):
    bodies = torch.zeros(3, 1, 8, 8, 8, dtype=torch.uint8)
    # the level of 0 is not solid
    bodies[:] = 128
    bodies[1, :, 2:6, 2:6, 2:6] = 255
    plot_voxels(tmp_path / "a.png", {"ours": bodies, "theirs": bodies}, rows=2)
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("L"))
    half = pixels.shape[0] // 2 + 10
    assert (pixels[20:half] < 200).mean() < 0.001
    assert (pixels[half:] < 200).mean() > 0.1


def test_only_bodies_are_rendered(tmp_path):
    with pytest.raises(UserError, match=r"only bodies .* not images \(3, 8, 8\)"):
        check_bodies((3, 8, 8))
    with pytest.raises(UserError, match="only bodies"):
        plot_voxels(tmp_path / "a.png", torch.zeros(1, 3, 4, 4, 4, dtype=torch.uint8))
    assert not list(tmp_path.iterdir())
