import math

import pytest
import torch

from genconv.checkpoint import read
from genconv.data import load_images
from genconv.energy import EnergyTransformer, GenerativeConvNet, beginning, context_of
from genconv.errors import UserError
from genconv.images import from_uint8
from genconv.sampling import Chain
from genconv.training import Thinking
from genconv.training.thinking import conceal, packed, unpacked


@pytest.mark.parametrize("space", [(16,), (16, 12), (4, 8, 12)])
def test_holes_are_boxes_of_a_quarter_of_the_sides_to_all(space):
    hidden = conceal(torch.zeros(500, 2, *space), torch.Generator().manual_seed(0))
    assert hidden.shape == (500, 1, *space)
    for axis, side in enumerate(space, 2):
        others = [a for a in range(1, hidden.ndim) if a != axis]
        along = hidden.amax(others)
        wide = along.sum(1)
        assert wide.min() == round(side / 4)
        assert wide.max() == side
        # a box is its shadows' product, and a shadow is in one piece
        assert ((along[:, 1:] != along[:, :-1]).sum(1) <= 2).all()
        assert along.float().mean(0).std() < 0.25
    volume = hidden.flatten(1).sum(1)
    sides = [
        hidden.amax([a for a in range(1, hidden.ndim) if a != axis]).sum(1)
        for axis in range(2, hidden.ndim)
    ]
    assert torch.equal(volume, torch.stack(sides).prod(0))


def test_a_buffer_holds_a_problem():
    x, truth = torch.rand(3, 1, 4, 4) * 2 - 1, torch.rand(3, 1, 4, 4) * 2 - 1
    known = (torch.rand(3, 1, 4, 4) > 0.5).float()
    context = torch.cat([2 * torch.randn(3, 1, 4, 4).clamp(-1.9, 1.9) * known, known], 1)
    rows = packed(x, truth, context)
    assert rows.abs().max() <= 1
    for noise in (0.0, 0.01):
        again = unpacked(rows + noise * (torch.rand_like(rows) - 0.5), 1)
        for found, expected in zip(again, (x, truth, context), strict=True):
            torch.testing.assert_close(found, expected, atol=2.1 * noise + 1e-6, rtol=0)
        assert torch.equal(again[2][:, 1:], known)


def make(**how):
    torch.manual_seed(0)
    energy = EnergyTransformer(1, patch=4, width=16, depth=1)
    how = {"chain": Chain(4, 0.5, 0.0), "k": 2, "lr": 1e-2, "buffer_size": 128} | how
    return Thinking(energy, **how)


@pytest.fixture
def module():
    module = make()
    module.generator = torch.Generator().manual_seed(0)
    module.log = module.log_dict = lambda *args, **kwargs: None
    return module


def test_thoughts_go_on_where_they_were_left(module):
    module.restart, module.noise, module.hidden = 0.25, (0.5, 0.5), 0.5
    x = torch.rand(64, 1, 8, 8) * 2 - 1
    for _ in range(6):
        module.training_step((x, None), 0)
    buffer = module.buffer
    assert buffer.images.shape == (128, 1 + 1 + 2, 8, 8)
    assert buffer.age.max() >= 2
    draw = buffer.draw(64)
    candidate, truth, context = unpacked(draw.x, 1)
    # every truth is one of the images, and its context was made of it
    nearest = torch.cdist(truth.flatten(1), x.flatten(1)).amin(1)
    assert nearest.max() < 0.1
    known = context[:, 1:] > 0
    away = (context[:, :1] - truth).abs()[known]
    assert away.median() < 1.0
    assert 0.1 < away.square().mean().sqrt() < 0.6
    holes = (~known).flatten(1).any(1)
    assert 0.2 < holes.float().mean() < 0.8
    assert (context[:, :1] - truth)[holes][known[holes]].abs().max() < 0.05
    # candidates in the buffer have left where they began
    start = beginning(context, torch.randn_like(truth)).clamp(-1, 1)
    assert (candidate - truth).square().mean() < 0.75 * (start - truth).square().mean()


def test_every_context_has_its_own_noise(module):
    module.noise = (0.2, 0.6)
    x = torch.zeros(2000, 1, 8, 8)
    levels = module._spoilt(x, module.generator)[:, :1].flatten(1).std(1)
    # uniform, up to what 64 pixels tell of a level
    assert levels.mean() == pytest.approx(0.4, abs=0.01)
    assert levels.std() == pytest.approx(0.4 / 12**0.5, rel=0.1)


def test_thoughts_begin_near_what_is_known(module):
    module.hidden, module.restart = 0.5, 1.0
    draw = module._problems(torch.rand(64, 1, 8, 8) * 2 - 1)
    x, _, context = unpacked(draw.x, 1)
    known = context[:, 1:] > 0
    assert (x - context[:, :1])[known].std() == pytest.approx(0.2, rel=0.1)
    assert x[~known].std() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("unrolled", [False, True])
def test_what_a_candidate_is_taken_for_is_taught_and_its_descent_if_unrolled(unrolled):
    module = make(k=2, through=1, jitter=1.0, calibrate=0.0, restart=1.0, unrolled=unrolled)
    module.generator = torch.Generator().manual_seed(0)
    module.log = module.log_dict = lambda *args, **kwargs: None
    torch.nn.init.normal_(module.energy.repair.weight)
    seen, judge, lengths = [], module.energy.judge, set()
    module.energy.judge = lambda x, c: seen.append((x, c)) or judge(x, c)
    for attempt in range(4):
        module.seed = attempt
        seen.clear()
        truth = torch.rand(1, 1, 8, 8) * 2 - 1
        loss = module.training_step((truth, None), 0)
        found = torch.autograd.grad(loss, module.energy.embed.weight)[0]
        (x, context), lengths = seen[-1], lengths | {len(seen)}
        x = x.detach().requires_grad_()
        energies, f = judge(x, context)
        expected = (f - truth).square().mean()
        if unrolled:
            (gradient,) = torch.autograd.grad(energies.sum(), x, create_graph=True)
            expected = expected + (x - 0.5 * gradient - truth).square().mean()
        torch.testing.assert_close(loss, expected, atol=1e-3, rtol=1e-3)
        by_hand = torch.autograd.grad(expected, module.energy.embed.weight)[0]
        torch.testing.assert_close(found, by_hand, atol=1e-3, rtol=1e-2)
    assert lengths == {1, 2}


def test_a_lost_thought_goes_on_from_what_is_known(module):
    module.restart = 1.0
    torch.nn.init.constant_(module.energy.repair.bias, 1e4)
    module.training_step((torch.rand(128, 1, 8, 8) * 2 - 1, None), 0)
    candidate, _, context = unpacked(module.buffer.draw(128).x, 1)
    torch.testing.assert_close(candidate, context[:, :1].clamp(-1, 1), atol=0.04, rtol=0)


@pytest.mark.parametrize("unrolled", [False, True])
def test_it_learns_to_take_noise_away(fit, unrolled):
    module = make(noise=(0.5, 0.5), restart=0.5, unrolled=unrolled)
    path = fit(module, 120)
    trained = read(path, "cpu")
    truth = from_uint8(load_images("digits", "test").images[:100])
    context = context_of(truth + 0.5 * torch.randn(truth.shape))
    ends = {}
    for steps in (1, 4):
        chain = trained.chain.at(steps=steps)
        start = beginning(context, torch.randn(truth.shape))
        ends[steps] = chain.run(trained.energy, start, context).x
    errors = {steps: (x - truth).square().mean().item() for steps, x in ends.items()}
    assert errors[4] < errors[1]
    assert errors[4] < 0.8 * 0.25
    # the card carries the step size that was learnt, the finest of it
    learnt = module.log_step.exp().item()
    assert trained.chain.step_size == pytest.approx(learnt / module.jitter, rel=1e-6)
    assert (abs(learnt - 0.5) > 0.01) == unrolled


def test_the_step_size_is_learnt_by_descents_alone(fit):
    module = make()
    fit(module, 3)
    assert module.log_step.item() == pytest.approx(math.log(0.5))
    assert module.trained((1, 8, 8)).chain.step_size == pytest.approx(0.25)


def test_a_picture_shows_thoughts(module):
    batch = (torch.rand(64, 1, 8, 8) * 2 - 1, None)
    seen = []
    images = module.drawn(
        21,
        batch,
        generator=torch.Generator().manual_seed(0),
        callback=lambda step, x: seen.append(step),
    )
    # what is known, the beginning, 1, 2, 4 steps, truth
    assert images.shape == (3 * 6, 1, 8, 8)
    assert torch.equal(images[5::6], batch[0][:3])
    assert seen == [1, 2, 3, 4]
    context = torch.cat([images[::6], torch.ones(3, 1, 8, 8)], 1)
    expected = module.trained((1, 8, 8)).chain.at(steps=2).run(module.energy, images[1::6], context)
    torch.testing.assert_close(images[3::6], expected.x)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"through": 3}, "1 <= through <= k"),
        ({"jitter": 0.5}, "jitter >= 1"),
        ({"hidden": 2.0}, "a share hidden"),
        ({"noise": (0.5, 0.2)}, r"noise is \[least, greatest\], not \[0.5, 0.2\]"),
        ({"chain": Chain(4, [(0, 0.1), (2, 0.2)])}, "one positive number"),
    ],
)
def test_what_cannot_be_is_said(how, message):
    with pytest.raises(UserError, match=message):
        make(**how)


def test_an_energy_without_a_context_cannot_think():
    with pytest.raises(UserError, match="with a context, not GenerativeConvNet"):
        Thinking(GenerativeConvNet())
