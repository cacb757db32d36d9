import pytest
import torch

from genconv.seeds import derive, stream


def test_every_place_has_a_stream_of_its_own():
    places = [(s, p, r) for s in range(5) for p in ("chains", "buffer", "data") for r in range(5)]
    assert len({derive(*place) for place in places}) == len(places)
    # neighbouring seeds and ranks are not the same run shifted
    assert derive(0, "chains", 1) != derive(1, "chains", 0)


def test_a_place_is_the_same_everywhere():
    assert derive(0, "image", 7) == derive(0, "image", 7)
    a, b = (torch.randn(5, generator=stream(3, "image", 2)) for _ in range(2))
    assert torch.equal(a, b)


def test_streams_are_uncorrelated():
    a, b = (torch.randn(10_000, generator=stream(0, name, 0)) for name in ("chains", "buffer"))
    assert abs((a * b).mean()) < 4 / 10_000**0.5


def test_seeds_are_not_negative():
    with pytest.raises(ValueError, match="non-negative"):
        derive(-1, "chains")
