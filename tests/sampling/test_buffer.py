import pytest
import torch

from genconv.images import from_uint8
from genconv.sampling import ReplayBuffer

SHAPE = (1, 2, 2)


def test_slots_are_distinct_and_each_is_drawn_equally_often():
    buffer = ReplayBuffer(50, SHAPE)
    counts = torch.zeros(50)
    for _ in range(400):
        slots = buffer.draw(20).slots
        assert len(slots.unique()) == 20
        counts[slots] += 1
    # Binomial(400, .4): mean 160, standard deviation 9.8
    assert (counts - 160).abs().max() < 4 * 9.8


def test_a_chain_returns_to_its_own_slot():
    buffer = ReplayBuffer(40, SHAPE, restart=0.0)
    draw = buffer.draw(10)
    others = torch.ones(40, dtype=torch.bool).index_fill(0, draw.slots, False)
    untouched = buffer.images[others].clone()
    marks = torch.arange(10, dtype=torch.uint8)
    buffer.write(draw, from_uint8(marks)[:, None, None, None].expand(10, *SHAPE))
    assert torch.equal(buffer.images[draw.slots, 0, 0, 0], marks)
    assert torch.equal(buffer.images[others], untouched)


def test_what_was_drawn_is_no_view_of_the_buffer():
    buffer = ReplayBuffer(10, SHAPE)
    before = buffer.images.clone()
    buffer.draw(10).x.fill_(9)
    assert torch.equal(buffer.images, before)


def test_resumes_within_half_a_grey_level_of_where_the_chain_stopped():
    buffer = ReplayBuffer(256, (1,))
    buffer.images[:, 0] = torch.arange(256, dtype=torch.uint8)
    draw = buffer.draw(256)
    off = (draw.x - from_uint8(buffer.images[draw.slots])) * 127.5
    assert off.abs().max() <= 0.5 + 1e-4
    assert off.std() == pytest.approx(1 / 12**0.5, rel=0.15)


def test_restarts_an_exact_share():
    buffer = ReplayBuffer(64, SHAPE, restart=0.05)
    fresh = sum(buffer.draw(32).fresh for _ in range(1000))
    assert abs(fresh - 0.05 * 32 * 1000) < 1


def test_age_is_geometric():
    p, capacity = 0.1, 2000
    buffer = ReplayBuffer(capacity, (1,), restart=p)
    for _ in range(600):
        draw = buffer.draw(200)
        buffer.write(draw, draw.x)
    age = buffer.age.double()
    mean, variance = (1 - p) / p, (1 - p) / p**2
    assert abs(age.mean() - mean) < 4 * (variance / capacity) ** 0.5
    assert (age == 0).double().mean() == pytest.approx(p, abs=4 * (p * (1 - p) / capacity) ** 0.5)


def test_fresh_chains_are_the_first_rows_and_begin_at_age_0():
    buffer = ReplayBuffer(20, SHAPE, restart=0.5)
    for _ in range(2):
        draw = buffer.draw(20)
        buffer.write(draw, draw.x)
    assert draw.fresh == 10
    assert (buffer.age[draw.slots[:10]] == 0).all()
    assert (buffer.age[draw.slots[10:]] >= 1).all()


def test_a_slot_keeps_its_class():
    buffer = ReplayBuffer(60, SHAPE, classes=3)
    wanted = torch.tensor([2, 2, 0, 1, 2, 0])
    draw = buffer.draw(6, wanted)
    assert torch.equal(draw.y, wanted)
    assert torch.equal(draw.slots % 3, wanted)
    assert len(draw.slots.unique()) == 6
    mixed = torch.cat([buffer.draw(10).y for _ in range(3)])
    assert torch.equal(mixed.bincount(), torch.full((3,), 10))


def test_begins_as_noise_or_as_it_is_told():
    buffer = ReplayBuffer(100, (1, 8, 8))
    assert buffer.images.double().mean() == pytest.approx(127.5, abs=4 * 74 / 6400**0.5)
    buffer = ReplayBuffer(10, SHAPE, classes=2)
    calls = []

    def start(n, y):
        calls.append(n)
        return (y.float() * 2 - 1)[:, None, None, None].expand(n, *SHAPE)

    buffer.fill(start, chunk=4)
    assert calls == [4, 4, 2]
    assert torch.equal(buffer.images[:, 0, 0, 0], torch.tensor([0, 255] * 5, dtype=torch.uint8))


def test_state_gives_the_same_next_draw():
    buffer = ReplayBuffer(30, SHAPE, restart=0.3, classes=3, seed=5)
    buffer.write(draw := buffer.draw(7), draw.x)
    twin = ReplayBuffer.from_state_dict(buffer.state_dict())
    twin_draw, draw = twin.draw(9), buffer.draw(9)
    assert torch.equal(twin.images, buffer.images)
    assert torch.equal(twin.age, buffer.age)
    assert torch.equal(twin_draw.x, draw.x)
    assert torch.equal(twin_draw.slots, draw.slots)
    assert twin_draw.fresh == draw.fresh


def test_chains_of_another_kind_of_device_go_on_with_a_stream_of_their_own():
    buffer = ReplayBuffer(30, SHAPE, seed=5)
    # what a CUDA generator's state is: a seed and an offset
    state = {**buffer.state_dict(), "generator": torch.zeros(16, dtype=torch.uint8)}
    a, same, b = (ReplayBuffer.from_state_dict(state, seed=s) for s in (0, 0, 1))
    assert torch.equal(a.images, buffer.images)
    slots = a.draw(9).slots
    assert torch.equal(slots, same.draw(9).slots)
    assert not torch.equal(slots, b.draw(9).slots)


def test_seeds_differ():
    a, b = (ReplayBuffer(30, SHAPE, seed=s) for s in (0, 1))
    assert not torch.equal(a.images, b.images)
    assert not torch.equal(a.draw(9).slots, b.draw(9).slots)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 0}, "capacity"),
        ({"capacity": 10, "classes": 3}, "classes"),
        ({"capacity": 10, "restart": 1.5}, "share"),
    ],
)
def test_refuses_what_makes_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReplayBuffer(shape=SHAPE, **arguments)


def test_cannot_lend_more_than_it_has():
    with pytest.raises(ValueError, match="10 chains cannot lend 11"):
        ReplayBuffer(10, SHAPE).draw(11)
    with pytest.raises(ValueError, match="cannot lend"):
        ReplayBuffer(10, SHAPE, classes=5).draw(3, torch.zeros(3, dtype=torch.int64))
