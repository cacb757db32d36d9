"""Where each of the known answers is tested: a ledger that cannot go stale.

Each is a law or a number in closed form that a correct implementation must give. Those of
Boltzmann machines (15, 16, 18 to 20) lie with these.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAW = "tests/statistics/test_langevin_law.py"
METROPOLIS = "tests/statistics/test_metropolis_law.py"
LEARNING = "tests/statistics/test_learning.py"

WHERE = {
    # unadjusted Langevin on a Gaussian: variance s² / (1 - η / 2s²), in matrices, after K steps
    1: (LAW, "test_stationary_variance_has_the_bias_of_its_step_size"),
    2: (LAW, "test_stationary_covariance_of_a_correlated_gaussian"),
    3: (LAW, "test_law_after_a_few_steps"),
    # step α and noise σ of papers: T = σ² / 2α
    4: (LAW, "test_published_step_and_noise_map_to_a_temperature"),
    # a flat energy: K σ²; with a clamp mass at the walls; reflected, uniform
    5: (LAW, "test_flat_energy_diffuses"),
    6: (LAW, "test_clamping_a_flat_energy_leaves_mass_at_the_walls"),
    6.5: (LAW, "test_reflecting_a_flat_energy_leaves_it_uniform"),
    7: (METROPOLIS, "test_ratio_of_mala"),
    8: (METROPOLIS, "test_acceptance_of_mala"),
    9: (METROPOLIS, "test_leapfrog_on_an_oscillator"),
    9.5: (METROPOLIS, "test_leapfrog_undoes_itself_and_keeps_volume"),
    10: (METROPOLIS, "test_acceptance_of_hmc"),
    11: (METROPOLIS, "test_law_is_kept"),
    11.5: (METROPOLIS, "test_draws_of_few_chains_after_thinning"),
    # the expected gradient of CD-k, and of its loss by autograd
    13: ("tests/training/test_contrastive.py", "test_cd_k_has_its_known_gradient"),
    14: ("tests/training/test_contrastive.py", "test_gradient_is_that_of_mean_energies"),
    17: (LEARNING, "test_energies_of_finitely_many_states_become_minus_log_p"),
    24: ("tests/statistics/test_diagnostics_law.py", "test_r_hat_of_two_chains_that_are_apart"),
    24.5: ("tests/statistics/test_diagnostics_law.py", "test_ess_of_autoregressive_chains"),
    25: ("tests/sampling/test_buffer.py", "test_age_is_geometric"),
    25.5: ("tests/training/test_contrastive.py", "test_data_never_enter_the_buffer"),
    # annealing finds the weights of two modes, a short run must not
    26: (LAW, "test_annealing_finds_the_weights_of_two_modes_and_a_short_run_does_not"),
    27: ("tests/energy/test_contract.py", "test_gradient_is_that_of_finite_differences"),
    27.5: ("tests/energy/test_contract.py", "test_an_image_does_not_see_its_neighbours"),
}
ABSENT = {
    12: "genconv has no BAOAB; `hmc` with a persistent momentum is underdamped, and exact",
    21: "genconv has no score matching; see tests/statistics/test_learning.py",
    22: "genconv has no score matching; see tests/statistics/test_learning.py",
    23: "genconv has no denoiser to which Tweedie's formula would apply",
}
BOLTZMANN = {15, 16, 18, 19, 20}


def test_every_answer_has_a_place_or_a_reason():
    assert {int(number) for number in WHERE} | ABSENT.keys() | BOLTZMANN == set(range(1, 28))


@pytest.mark.parametrize("number", WHERE)
def test_the_test_is_there(number):
    path, name = WHERE[number]
    functions = [node.name for node in ast.parse((ROOT / path).read_text()).body
                 if isinstance(node, ast.FunctionDef)]  # fmt: skip
    assert name in functions
