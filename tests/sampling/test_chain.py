import pytest
import torch

from genconv.energy import RBM
from genconv.errors import UserError
from genconv.sampling import Chain, gibbs, value_at

KNOTS = [(2, 0.0), (4, 0.5), (8, 0.5)]


def test_schedules_run_between_their_knots():
    assert [value_at(KNOTS, i) for i in range(7)] == [0, 0, 0, 0.25, 0.5, 0.5, 0.5]
    assert value_at(3, 2) == 3.0
    assert value_at(KNOTS, 1000) == 0.5


def test_annealing_is_geometric():
    assert value_at([(0, 1.0), (2, 0.01)], 1) == pytest.approx(0.1)


def test_runs_its_own_recipe():
    chain = Chain(steps=3, step_size=[(0, 0.5), (2, 0.5)], temperature=0.0)
    result = chain.run(lambda x: x.square().sum(1) / 2, torch.ones(2, 1))
    torch.testing.assert_close(result.x, torch.full((2, 1), 0.125))


def test_continued_chains_stay_at_the_end_of_the_schedule():
    chain = Chain(steps=10, step_size=0.1, temperature=KNOTS, clamp=True).continued(5)
    assert (chain.steps, chain.temperature, chain.clamp) == (5, 0.5, True)


def test_what_is_left_goes_on_as_the_whole():
    chain = Chain(12, [(0, 0.1), (8, 0.4)], [(2, 0.0), (10, 0.5)])
    for step in (0, 5, 9, 12):
        rest = chain.after(step)
        assert rest.steps == 12 - step
        for name in ("step_size", "temperature"):
            left = [value_at(getattr(rest, name), i) for i in range(rest.steps)]
            whole = [value_at(getattr(chain, name), i) for i in range(step, 12)]
            assert left == pytest.approx(whole)


def test_overrides_keep_the_form_of_a_schedule():
    chain = Chain(steps=10, step_size=0.1, temperature=KNOTS)
    assert chain.at(temperature=1.0).temperature == [(2, 0.0), (4, 1.0), (8, 1.0)]
    assert chain.at(temperature=0.0).temperature == [(2, 0.0), (4, 0.0), (8, 0.0)]
    assert chain.at(steps=99, step_size=0.2) == Chain(99, 0.2, KNOTS)
    assert chain.at() == chain


def test_stretched_chains_go_the_same_way():
    chain = Chain(steps=20, step_size=[(0, 0.1), (10, 0.05)], temperature=[(8, 0.0), (12, 0.5)])
    shorter = chain.stretched(5)
    assert (shorter.steps, shorter.temperature) == (5, [(2, 0.0), (3, 0.5)])
    assert shorter.step_size == [(0, 0.4), (2, 0.2)]
    assert Chain(steps=20, step_size=0.1).stretched(80).step_size == pytest.approx(0.025)
    assert chain.stretched(20) == chain
    # E = x²/2 shrinks x by e^-t in the time t, in however many steps
    for steps in (50, 100, 400):
        x = (
            Chain(50, 0.02, 0.0)
            .stretched(steps)
            .run(lambda x: x.square().sum(1) / 2, torch.ones(1, 1))
        )
        assert x.x.item() == pytest.approx(2.71828**-1, abs=0.005)


def test_starts_as_noise_of_its_kind():
    g = torch.Generator().manual_seed(0)
    normal = Chain(start="normal").noise(1000, (1, 4), generator=g)
    uniform = Chain(start="uniform").noise(1000, (1, 4), generator=g)
    assert normal.std() == pytest.approx(1, abs=0.05)
    assert uniform.std() == pytest.approx(1 / 3**0.5, abs=0.03)
    assert uniform.abs().max() <= 1
    rows = [torch.Generator().manual_seed(i) for i in range(3)]
    last = Chain().noise(1, (1, 4), generator=[torch.Generator().manual_seed(2)])
    assert torch.equal(Chain().noise(3, (1, 4), generator=rows)[2:], last)


def test_plain_values_rebuild_it():
    chain = Chain(temperature=KNOTS, gradient_clip=0.1)
    assert Chain(**chain.to_dict()) == chain


def test_a_gibbs_chain_runs_its_own_recipe():
    chain = Chain(steps=3, temperature=[(0, 4.0), (2, 1.0)], sampler="gibbs")
    rbm, x = RBM((1, 2, 2), 3), torch.ones(5, 1, 2, 2)
    a = chain.run(rbm, x, generator=torch.Generator().manual_seed(0))
    temperature, generator = chain.temperature, torch.Generator().manual_seed(0)
    b = gibbs(rbm, x, steps=3, temperature=temperature, generator=generator)
    assert torch.equal(a.x, b.x)
    assert Chain(**chain.to_dict()) == chain
    assert chain.continued(7) == Chain(7, temperature=1.0, sampler="gibbs")
    assert chain.at(steps=9, temperature=2.0).temperature == [(0, 8.0), (2, 2.0)]
    with pytest.raises(UserError, match="no step size"):
        chain.at(step_size=0.1)


def test_the_time_of_a_transport():
    chain = Chain(steps=40, step_size=[(0, 0.05), (10, 0.05), (11, 0.025)])
    assert chain.time(0) == 0
    assert chain.time(10) == pytest.approx(0.5)
    assert chain.time(12) == pytest.approx(0.575)
    # the way ends at 1, whatever a chain does beyond
    assert chain.time(40) == 1
    assert [chain.step_at(t) for t in (0, 0.5, 0.51, 0.575, 1)] == [0, 10, 11, 12, 29]
    assert Chain(steps=10, step_size=0.01).step_at(1) == 10
    assert Chain(steps=10, step_size=5.0).step_at(0.5) == 1
