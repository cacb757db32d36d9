"""Mistakes in objectives, in the module that they share, in weight averaging, and in energies."""

# ruff: noqa: E501 - a mistake is a line of code, which is not broken here

from tests.statistics.mutations.mutant import Mutant

CD = "training/test_contrastive.py::"
MATCHING = "training/test_energy_matching.py::"
AVERAGE = "training/test_averaging.py::test_average_is_the_recurrence"
CONTRACT = "energy/test_contract.py::"
LEARNING = "statistics/test_learning.py::"

CONTRASTIVE = [
    ("data are pushed up and samples down", "gap = e_data.mean() - e_chains.mean()",
     "gap = e_chains.mean() - e_data.mean()", CD + "test_gradient_is_that_of_mean_energies"),
    ("the squares are rewarded", "gap + self.alpha", "gap - self.alpha",
     CD + "test_regularisation_is_the_mean_square"),
    ("only the data's squares count", "e_data.square().mean() + e_chains.square().mean()",
     "e_data.square().mean()", CD + "test_regularisation_is_the_mean_square"),
    ("the noise on the data is not scaled", "x + self.noise * draw_noise(", "x + draw_noise(",
     CD + "test_noise_on_the_data_has_its_scale"),
    ("the last step has no graph", "create_graph=True", "create_graph=False",
     CD + "test_kl_term_reaches_the_weights_only_through_the_last_step"),
    ("the last step goes uphill", "return x - chain.continued(1)", "return x + chain.continued(1)",
     CD + "test_kl_term_reaches_the_weights_only_through_the_last_step"),
    ("the KL term lets the energy itself learn",
     "            with frozen(self.energy):\n                energies",
     "            if True:\n                energies",
     CD + "test_kl_term_reaches_the_weights_only_through_the_last_step"),
    ("the KL term raises the samples' energy", "loss + self.kl", "loss - self.kl",
     CD + "test_kl_term_reaches_the_weights_only_through_the_last_step"),
    ("samples are drawn together", "- self.entropy * entropy(", "+ self.entropy * entropy(",
     CD + "test_entropy_is_rewarded"),
    ("every sample is its own neighbour", "distance.masked_fill(own, torch.inf)", "distance",
     CD + "test_entropy_grows_by_the_log_of_a_scale"),
    ("a detach is missing", "others.detach().flatten(1)", "others.flatten(1)",
     CD + "test_entropy_teaches_the_samples_and_not_their_neighbours"),
    ("classes are as likely as they are unlikely", "F.cross_entropy(-energies", "F.cross_entropy(energies",
     CD + "test_classification_adds_the_cross_entropy_of_the_energies"),
    ("classes are told apart at another temperature", "-energies / temperature", "-energies",
     MATCHING + "test_classification_is_that_of_the_law_at_the_chains_temperature"),
    ("data and chains change places",
     "return energies[: len(data)], energies[len(data) :]",
     "return energies[len(data) :], energies[: len(data)]", CD + "test_one_pass_gives_both_energies"),
]  # fmt: skip

MODULE = [
    ("data are written into the buffer", "buffer.write(draw, end)", "buffer.write(draw, x)",
     CD + "test_data_never_enter_the_buffer"),
    ("chains stand still", "self._restarted(self.advance(start, draw.y))", "start",
     LEARNING + "test_persistent_chains_learn_the_energy_whose_biased_law_is_that_of_the_data"),
    ("the buffer is not written", "buffer.write(draw, end)", "pass",
     LEARNING + "test_persistent_chains_learn_the_energy_whose_biased_law_is_that_of_the_data"),
    ("restarted chains go on", "start[: draw.fresh] = self._new_chains(draw.fresh, shape, labels)",
     "pass", CD + "test_restarted_chains_begin_at_noise_and_the_others_go_on"),
    ("going on chains are restarted", "start[: draw.fresh] = self._new_chains(draw.fresh, shape, labels)",
     "start = self._new_chains(len(start), shape, draw.y)",
     CD + "test_restarted_chains_begin_at_noise_and_the_others_go_on"),
    ("new chains do not settle", "return self._run(self.chain, x, y).x",
     "return x", MATCHING + "test_new_chains_travel_the_whole_way"),
    ("chains made ahead are lost with the process", '"spare": self.spare.clone() if self.spare is not None else None', '"spare": None',
     "training/test_resume.py::test_stopped_and_resumed_equals_uninterrupted"),
    ("the buffer begins bare", "self.buffer.fill(lambda n, y: self._new_chains(n, shape, y))", "pass",
     MATCHING + "test_buffer_begins_settled"),
    ("the probe draws from the chains' generator", "generator = stream(self.seed, *place, device=end.device)",
     "generator = self.generator",
     CD + "test_acceptance_is_logged_at_every_tenth_update_and_changes_nothing"),
]  # fmt: skip

GUARD = [
    ("a gap has only its own size beside it", "torch.fmax(sizes, least)", "sizes",
     "training/test_guard.py::test_a_gap_is_far_beside_its_own_size_and_that_of_the_energies"),
    ("no gap is ever far", "above[1] | ~sizes[1].isfinite()", "~sizes[1].isfinite()",
     "training/test_guard.py::test_a_gap_is_far_beside_its_own_size_and_that_of_the_energies"),
]  # fmt: skip

ENERGY_MATCHING = [
    ("time runs backwards", "((1 - t) * x0 + t * x1)", "(t * x0 + (1 - t) * x1)",
     MATCHING + "test_loss_looks_at_the_point_on_the_line"),
    ("the velocity points back", "(gradient + x1 - x0)", "(gradient - x1 + x0)",
     LEARNING + "test_optimum_of_energy_matching_between_two_gaussians"),
    ("the loss has no graph", "create_graph=True", "create_graph=False",
     MATCHING + "test_learns_the_way_between_two_gaussians"),
    ("times are not uniform", "(shift + torch.arange(n, device=device) / n) % 1",
     "(shift + torch.arange(n, device=device) / n) / 2",
     MATCHING + "test_times_are_uniform_each_and_evenly_spread_together"),
    ("times lie where they fall", "draw_noise((1,), generator, draw=torch.rand, device=device)",
     "draw_noise((n,), generator, draw=torch.rand, device=device)",
     MATCHING + "test_times_are_uniform_each_and_evenly_spread_together"),
    ("the second phase never begins", "if self.global_step >= self.transport_updates", "if False",
     MATCHING + "test_the_second_phase_begins_at_its_update"),
    ("the second phase begins late", "self.global_step >= self.transport_updates",
     "self.global_step > self.transport_updates",
     MATCHING + "test_the_second_phase_begins_at_its_update"),
    ("samples are pulled down", "self.weight * (e_data.mean() - e_chains.mean())",
     "self.weight * (e_chains.mean() - e_data.mean())",
     MATCHING + "test_contrastive_phase_is_floored_and_trimmed"),
    ("the floor is a ceiling", "loss.clamp_min(self.floor)", "loss.clamp_max(self.floor)",
     MATCHING + "test_contrastive_phase_is_floored_and_trimmed"),
    ("the lowest are trimmed", "e_chains.sort().values", "e_chains.sort(descending=True).values",
     MATCHING + "test_contrastive_phase_is_floored_and_trimmed"),
    ("pairs are the worst", "linear_sum_assignment(cost.cpu().numpy())",
     "linear_sum_assignment(-cost.cpu().numpy())",
     MATCHING + "test_transport_pairs_each_image_with_its_own_noise"),
]  # fmt: skip

AVERAGING = [
    ("the average is never updated", "torch._foreach_lerp_(*both, 1 - keep)", "pass", AVERAGE),
    ("the average forgets what it should keep", "1 - keep)", "keep)", AVERAGE),
    ("fresh weights are not forgotten", "keep = min(self.decay, (1 + n) / (10 + n))", "keep = self.decay", AVERAGE),
]  # fmt: skip

CONVNET = [
    ("every class is the first", "gather(1, y[:, None])", "gather(1, 0 * y[:, None])",
     CONTRACT + "test_energies_by_class_are_those_of_each_class"),
    ("the mixture has a minus too few", "-torch.logsumexp(-energies, 1)", "torch.logsumexp(-energies, 1)",
     CONTRACT + "test_unconditional_energy_of_classes_is_their_mixture"),
    ("energies are summed in bfloat16", "widen(self.head(self.features(x)))",
     "self.head(self.features(x))", CONTRACT + "test_gives_one_float32_number_for_each_image"),
    ("the batch is summed", "responses.flatten(2).sum(2)", "responses.flatten(2).sum((0, 2))[None]",
     CONTRACT + "test_gives_one_float32_number_for_each_image"),
    ("responses are averaged", "responses.flatten(2).sum(2)", "responses.flatten(2).mean(2)",
     CONTRACT + "test_energies_of_parts_add_up"),
    ("the reference is twice as narrow", "(2 * self.reference**2)", "self.reference**2",
     CONTRACT + "test_reference_adds_the_gaussian"),
]  # fmt: skip

NORMS = "energy/test_twice.py::test_group_norm_through_both_derivatives"
TWICE = [
    ("the second derivative loses a factor", ".mul_(x).add_(2)", ".mul_(x).add_(1)",
     "energy/test_twice.py::test_silu_by_finite_differences"),
    ("the deviation is a constant", "means(g * av, w) * rstd.square()", "0 * means(g * av, w)", NORMS),
    ("the mean is not taken off", "(means(v * x) - mean * means(v))", "means(v * x)", NORMS),
    ("the weight has no second derivative", "(g * av).flatten(2)", "(0 * av).flatten(2)", NORMS),
    ("a third derivative is lost in silence", "if torch.is_grad_enabled():", "if False:",
     "energy/test_twice.py::test_a_third_derivative_is_refused"),
]  # fmt: skip

CONVOLVED = "energy/test_convolution_twice.py::"
CONVOLUTION = [
    ("the weights' second gradient sees the image", "how.gradients(g, v, weight, (False, True, False))[1]",
     "how.gradients(g, x, weight, (False, True, False))[1]", CONVOLVED + "test_both_derivatives_are_those_of_pytorch"),
    ("the bias has no second derivative", "how.convolve(v, weight, v_bias)", "how.convolve(v, weight)",
     CONVOLVED + "test_both_derivatives_are_those_of_pytorch"),
    ("every gradient is computed", "return torch._C._will_engine_execute_node(node.next_functions[i][0])", "return True",
     CONVOLVED + "test_weights_get_no_gradient_that_nobody_asked_for"),
]  # fmt: skip

JUDGE = [
    ("the raw weights draw", "with averaged(trainer, module):", "if True:",
     "training/test_judge.py::test_distance_is_that_of_samples_of_the_averages"),
    ("every verdict is the best", "if distance < self.best:", "if True:",
     "training/test_judge.py::test_the_best_is_kept_and_too_long_a_training_ended"),
    ("a resumed run forgets the best", 'self.best, self.since = state["best"], state["since"]', "pass",
     "training/test_judge.py::test_a_resumed_judge_remembers"),
]  # fmt: skip

MUTANTS = [
    Mutant(name, file, old, new, test)
    for file, group in [
        ("training/contrastive.py", CONTRASTIVE), ("training/module.py", MODULE),
        ("training/guard.py", GUARD), ("training/energy_matching.py", ENERGY_MATCHING),
        ("training/averaging.py", AVERAGING), ("energy/convnet.py", CONVNET),
        ("energy/twice.py", TWICE), ("energy/convolution.py", CONVOLUTION),
        ("training/judge.py", JUDGE),
    ]
    for name, old, new, test in group
]  # fmt: skip
