"""Mistakes in samplers, chains, their diagnostics, and the buffer."""

# ruff: noqa: E501 - a mistake is a line of code, which is not broken here

from tests.statistics.mutations.mutant import Mutant

LAW = "statistics/test_langevin_law.py::"
EXACT = "statistics/test_metropolis_law.py::"
STATE = "sampling/test_metropolis.py::"
CONTRACT = "sampling/test_langevin.py::"
BUFFER = "sampling/test_buffer.py::"
CHAIN = "sampling/test_chain.py::"
ESS = "statistics/test_diagnostics_law.py::"

LANGEVIN = [
    ("the 2 under the root is lost", "(2 * eta * heat) ** 0.5", "(eta * heat) ** 0.5",
     LAW + "test_stationary_variance_has_the_bias_of_its_step_size"),
    ("the root is lost", "(2 * eta * heat) ** 0.5", "2 * eta * heat",
     LAW + "test_flat_energy_diffuses"),
    ("temperature is forgotten", "(2 * eta * heat)", "(2 * eta)",
     LAW + "test_published_step_and_noise_map_to_a_temperature"),
    ("uphill", "x = x.sub_(gradient", "x = x.add_(gradient",
     CONTRACT + "test_without_temperature_it_is_gradient_descent"),
    ("half a step", "sub_(gradient, alpha=eta)", "sub_(gradient, alpha=eta / 2)",
     LAW + "test_law_after_a_few_steps"),
    ("clamped before the noise",
     """            if heat > 0:
                x = x.add_(
                    draw_noise(x.shape, generator, dtype=x.dtype, device=x.device),
                    alpha=(2 * eta * heat) ** 0.5,
                )
            if clamp is not None:
                x = x.clamp_(*clamp)
""",
     """            if clamp is not None:
                x = x.clamp_(*clamp)
            if heat > 0:
                x = x.add_(
                    draw_noise(x.shape, generator, dtype=x.dtype, device=x.device),
                    alpha=(2 * eta * heat) ** 0.5,
                )
""",
     LAW + "test_clamping_a_flat_energy_leaves_mass_at_the_walls"),
    ("the projection is thrown away", "x = project(x)", "project(x)",
     CONTRACT + "test_clamps_then_projects_after_each_step"),
    ("noise from the global generator", "draw_noise(x.shape, generator,", "draw_noise(x.shape, None,",
     CONTRACT + "test_noise_comes_from_the_generator_only"),
    ("clips one side only", "gradient.clamp(-gradient_clip, gradient_clip)",
     "gradient.clamp(max=gradient_clip)", CONTRACT + "test_clips_each_element_of_the_gradient"),
    ("schedules run a step ahead", "value_at(temperature, step)\n            energies",
     "value_at(temperature, step + 1)\n            energies",
     CONTRACT + "test_schedules_give_each_step_its_own_values"),
    ("step sizes run a step ahead", "value_at(step_size, step),", "value_at(step_size, step + 1),",
     CONTRACT + "test_schedules_give_each_step_its_own_values"),
    ("movement from the origin", "norm(x - start)", "norm(x)",
     CONTRACT + "test_without_temperature_it_is_gradient_descent"),
]  # fmt: skip

GRADIENT = [
    ("the network stays in training mode", "module.training = False", "pass",
     CONTRACT + "test_runs_in_eval_mode_with_frozen_parameters"),
    ("the mode is not put back", "module.training = flag", "pass",
     CONTRACT + "test_leaves_no_trace_on_the_energy"),
    ("parameters are not frozen", "parameter.requires_grad_(False)", "pass",
     CONTRACT + "test_runs_in_eval_mode_with_frozen_parameters"),
    ("parameters stay frozen", "parameter.requires_grad_(flag)", "pass",
     CONTRACT + "test_restores_the_energy_after_an_error"),
    ("the gradient of the mean", "energies.sum(), x)", "energies.mean(), x)",
     LAW + "test_law_after_a_few_steps"),
    ("a graph is left on the energies", "return energies.detach(), gradient",
     "return energies, gradient", CONTRACT + "test_leaves_no_trace_on_the_energy"),
    ("all rows share a generator", "for g in generator]", "for g in [generator[0]] * len(generator)]",
     CONTRACT + "test_a_generator_for_each_chain_frees_it_from_its_batch"),
    ("double precision is lost", "x.to(torch.promote_types(x.dtype, torch.float32), copy=True)",
     "x.to(torch.float32, copy=True)", LAW + "test_stationary_covariance_of_a_correlated_gaussian"),
    ("the start is not copied", "copy=True)", "copy=False)",
     STATE + "test_gives_the_same_in_every_grad_mode"),
    ("always in bfloat16", "enabled=bf16", "enabled=True",
     CONTRACT + "test_bf16_keeps_the_chain_in_float32"),
    ("somebody's autocast reaches exact chains", "enabled=bf16",
     'enabled=bf16 or torch.is_autocast_enabled("cpu")',
     STATE + "test_keeps_to_float32_under_autocast"),
]  # fmt: skip

SCHEDULE = [
    ("annealing is linear", "return first * (last / first) ** along",
     "return first + (last - first) * along", CHAIN + "test_annealing_is_geometric"),
]  # fmt: skip

CHAINS = [
    ("goes on with the first knot", "return knots[-1][1] if", "return knots[0][1] if",
     CHAIN + "test_continued_chains_stay_at_the_end_of_the_schedule"),
    ("uniform starts in [0, 1]", "else x * 2 - 1", "else x", CHAIN + "test_starts_as_noise_of_its_kind"),
]  # fmt: skip

HMC = [
    ("the ratio without the proposal's density", "(energies_new - energies + kinetic) / heat",
     "(energies_new - energies) / heat", EXACT + "test_ratio_of_mala"),
    ("the ratio upside down", "ratio = -(energies_new", "ratio = (energies_new",
     EXACT + "test_acceptance_of_mala"),
    ("the ratio without the temperature", "+ kinetic) / heat", "+ kinetic)",
     EXACT + "test_temperature_widens_the_law"),
    ("everything is accepted", "accept = draw_noise((len(x),), generator, draw=torch.rand, **kind).log() < ratio",
     "accept = ratio == ratio", EXACT + "test_law_is_kept"),
    ("one draw decides for all chains", "draw_noise((len(x),), generator, draw=torch.rand, **kind)",
     "draw_noise((1,), generator, draw=torch.rand, **kind)", EXACT + "test_acceptance_of_mala"),
    ("the momentum is never refreshed", "keep = persistence if step else 0.0",
     "keep = 1.0 if step else 0.0",
     EXACT + "test_momentum_that_persists_carries_a_chain_further"),
    ("the momentum does not turn round", "torch.where(wide, p_new, -p)", "torch.where(wide, p_new, p)",
     EXACT + "test_momentum_turns_round_at_a_rejection"),
    ("an accepted momentum turns round", "torch.where(wide, p_new, -p)",
     "torch.where(wide, -p_new, -p)",
     EXACT + "test_momentum_that_persists_carries_a_chain_further"),
    ("a kept momentum gains too little noise", "(1 - keep**2) ** 0.5 * noise", "(1 - keep) * noise",
     EXACT + "test_momentum_that_persists_carries_a_chain_further"),
    ("momenta do not know the temperature", "p = heat**0.5 * momentum", "p = momentum",
     EXACT + "test_temperature_widens_the_law"),
    ("momenta stay as warm as they were", "torch.where(wide, p_new, -p) / heat**0.5",
     "torch.where(wide, p_new, -p)", EXACT + "test_temperature_widens_the_law"),
    ("the first kick is whole", "p = p - step_size / 2 * gradient", "p = p - step_size * gradient",
     EXACT + "test_leapfrog_on_an_oscillator"),
    ("the last kick is whole", "(step_size if left else step_size / 2)", "step_size",
     EXACT + "test_leapfrog_on_an_oscillator"),
    ("the gradient is not renewed", "energies, gradient = energy_and_gradient(energy, x, y)\n        p",
     "energies, _ = energy_and_gradient(energy, x, y)\n        p",
     EXACT + "test_leapfrog_undoes_itself_and_keeps_volume"),
    ("a rejected state gets the proposal's gradient", "torch.where(wide, gradient_new, gradient)",
     "gradient_new", STATE + "test_a_rejected_chain_stays_where_it_is"),
    ("a rejected state gets the proposal's energy", "energies = torch.where(accept, energies_new, energies)",
     "energies = energies_new", STATE + "test_a_rejected_chain_stays_where_it_is"),
    ("no number is no acceptance", ".nan_to_num(0)", "",
     STATE + "test_never_goes_where_the_energy_is_infinite_or_no_number"),
    ("a schedule may end at no temperature", "not min(values) > 0", "values[0] <= 0",
     STATE + "test_refuses_a_temperature_that_has_no_law"),
]  # fmt: skip

MALA = [
    ("the 2 under the root is lost", "(2 * value_at(step_size, step)) ** 0.5",
     "value_at(step_size, step) ** 0.5", EXACT + "test_a_proposal_of_mala_is_a_step_of_langevin"),
]  # fmt: skip

DIAGNOSTICS = [
    ("chains are not cut in two", "return torch.cat([chains[:half], chains[draws - half :]], 1).double()",
     "return chains.double()", ESS + "test_r_hat_of_a_chain_that_drifts"),
    ("autocorrelations count once", "2 * pairs.sum(0)", "pairs.sum(0)",
     ESS + "test_ess_of_autoregressive_chains"),
    ("the sum does not end", "positive = (even + odd > 0).cumprod(0)",
     "positive = torch.ones_like(even, dtype=torch.long)", ESS + "test_ess_of_autoregressive_chains"),
    ("chains apart look like one", " + z.mean(0).var(0))", ")", "sampling/test_diagnostics.py::test_equals_arviz"),
    ("ties get their first rank", "rank = (below + upto + 1) / 2", "rank = below + 1.0",
     "sampling/test_diagnostics.py::test_equals_arviz"),
    ("width does not count", "torch.maximum(_r_hat(_normal_scores(halves)), _r_hat(_normal_scores(far)))",
     "_r_hat(_normal_scores(halves))",
     ESS + "test_r_hat_is_one_where_chains_agree_and_ranks_see_width_too"),
]  # fmt: skip

REPLAY = [
    ("stale slots", "self.images[draw.slots] = to_uint8(x)",
     "self.images[draw.slots.roll(1)] = to_uint8(x)", BUFFER + "test_a_chain_returns_to_its_own_slot"),
    ("chains are never written back", "self.images[draw.slots] = to_uint8(x)", "pass",
     BUFFER + "test_a_chain_returns_to_its_own_slot"),
    ("slots are drawn twice",
     "torch.randperm(share, generator=self.generator, device=device)",
     "torch.randint(share, (share,), generator=self.generator, device=device)",
     BUFFER + "test_slots_are_distinct_and_each_is_drawn_equally_often"),
    ("the same slots each time",
     "torch.randperm(share, generator=self.generator, device=device)",
     "torch.arange(share, device=device)",
     BUFFER + "test_slots_are_distinct_and_each_is_drawn_equally_often"),
    ("chains do not age", "age = self.age[draw.slots] + 1", "age = self.age[draw.slots]",
     BUFFER + "test_fresh_chains_are_the_first_rows_and_begin_at_age_0"),
    ("old chains become young", "age[: draw.fresh] = 0", "age[draw.fresh :] = 0",
     BUFFER + "test_fresh_chains_are_the_first_rows_and_begin_at_age_0"),
    ("fresh chains keep their age", "age[: draw.fresh] = 0", "pass", BUFFER + "test_age_is_geometric"),
    ("fractions of a restart are lost",
     "int((self.drawn + n) * self.restart) - int(self.drawn * self.restart)", "int(n * self.restart)",
     BUFFER + "test_restarts_an_exact_share"),
    ("every level is raised by half", "(noise - 0.5) / 127.5", "noise / 127.5",
     BUFFER + "test_resumes_within_half_a_grey_level_of_where_the_chain_stopped"),
    ("classes share slots", "order[rank] * kinds + y", "order[rank] * kinds",
     BUFFER + "test_a_slot_keeps_its_class"),
    ("the generator is not restored", 'put_back(buffer.generator, state["generator"])', "pass",
     BUFFER + "test_state_gives_the_same_next_draw"),
    ("the count of draws is not restored", 'buffer.drawn = state["drawn"]', "pass",
     BUFFER + "test_state_gives_the_same_next_draw"),
]  # fmt: skip

MUTANTS = [
    Mutant(name, f"sampling/{file}.py", old, new, test)
    for file, group in [
        ("langevin", LANGEVIN), ("gradient", GRADIENT), ("schedule", SCHEDULE), ("chain", CHAINS),
        ("hmc", HMC), ("mala", MALA), ("diagnostics", DIAGNOSTICS), ("buffer", REPLAY),
    ]
    for name, old, new, test in group
]  # fmt: skip
