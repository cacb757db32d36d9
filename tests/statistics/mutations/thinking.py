"""Mistakes in energy-based transformers, and in what teaches them and uses them."""

# ruff: noqa: E501 - a mistake is a line of code, which is not broken here

from tests.statistics.mutations.mutant import Mutant

THINK = "training/test_thinking.py::"
DESCEND = "training/test_unroll.py::"
SEE = "energy/test_transformer.py::"
EDIT = "tasks/test_recover_command.py::"
BOWL = DESCEND + "test_the_end_of_a_descent_in_a_bowl_depends_on_all_as_it_must"
AIM = THINK + "test_what_a_candidate_is_taken_for_is_taught_and_its_descent_if_unrolled"
PROBLEM = THINK + "test_thoughts_go_on_where_they_were_left"

UNROLL = [
    ("the descent has no graph", "create_graph=learns", "create_graph=False", BOWL),
    ("the descent climbs", "x - eta * gradient", "x + eta * gradient", BOWL),
    ("the step size is not learnt", "eta = step_size if learns or", "eta = step_size if", BOWL),
    ("one step too many is learnt", "learns = left <= through", "learns = left <= through + 1",
     DESCEND + "test_truncation_forgets_the_steps_before"),
    ("nothing is forgotten", "learns = left <= through", "learns = True",
     DESCEND + "test_truncation_forgets_the_steps_before"),
    ("only the last step is learnt", "learns = left <= through", "learns = left == 1", BOWL),
    ("the noise has no heat", "(2 * temperature *", "(temperature *",
     DESCEND + "test_noise_has_the_heat_of_each_step"),
    ("the level is that of the whole square", ".flatten(1).sum(1) / 2).clamp_min", ".flatten(1).sum(1)).clamp_min",
     DESCEND + "test_an_energy_that_is_the_error_is_calibrated"),
    ("steps of the first order hang together", "x = x.detach().requires_grad_()\n            e =", "e =",
     DESCEND + "test_of_the_first_order_only_energies_depend_on_parameters"),
]  # fmt: skip

TRAINING = [
    ("holes are half as wide", "(0.25 + 0.75 * share)", "(0.25 + 0.25 * share)",
     THINK + "test_holes_are_boxes_of_a_quarter_of_the_sides_to_all"),
    ("holes lean to one side", "(place * (side - wide + 1)).floor()", "(0 * place * (side - wide + 1)).floor()",
     THINK + "test_holes_are_boxes_of_a_quarter_of_the_sides_to_all"),
    ("holes are noisy", "torch.where(hole, x, noisy)", "noisy", PROBLEM),
    ("nothing is hidden", "known = ~(conceal(x, generator) & hole)", "known = torch.ones_like(x[:, :1])", PROBLEM),
    ("contexts are stored at another size than they are read", "context = REACH * context", "context = 2 * context",
     THINK + "test_a_buffer_holds_a_problem"),
    ("candidates are not put back", "packed(end, truth, context)", "packed(x, truth, context)", PROBLEM),
    ("a lost thought stays lost", "torch.where(lost,", "torch.where(lost & False,",
     THINK + "test_a_lost_thought_goes_on_from_what_is_known"),
    ("all contexts are as noisy", "level = least + (greatest - least) * share", "level = (least + greatest) / 2",
     THINK + "test_every_context_has_its_own_noise"),
    ("the first steps are taught", "repaired[-len(thought.visited) :]", "repaired[: len(thought.visited)]", AIM),
    ("the descent is always taught", "(error if self.unrolled else 0)", "error", AIM),
    ("the descent is never taught", "(error if self.unrolled else 0)", "0 * error", AIM),
    ("the card has the step size of before", "replace(self.chain, step_size=self._finest(self.log_step))",
     "self.chain", THINK + "test_the_step_size_is_learnt_by_descents_alone"),
    ("the card forgets the average", 'checkpoint["genconv"]["chain"]["step_size"] = step_size', "pass",
     THINK + "test_it_learns_to_take_noise_away"),
]  # fmt: skip

ENERGY = [
    ("patches are shuffled", "return x.permute(0, *places, 1, *inside)", "return x.permute(0, *inside, 1, *places)",
     SEE + "test_patches_are_the_squares_of_the_image"),
    ("patches are put back elsewhere", "(1 + i, 2 + self.dims + i)", "(2 + self.dims + i, 1 + i)",
     SEE + "test_patches_are_the_squares_of_the_image"),
    ("thoughts begin at noise alone", "torch.where(known, image + STIR * noise, noise)", "noise",
     SEE + "test_thoughts_begin_near_what_is_known_and_at_noise_elsewhere"),
    ("there are no places", "tokens = tokens + positions(", "tokens = tokens + 0 * positions(",
     SEE + "test_places_differ_and_attention_reaches_everywhere"),
    ("tokens see only themselves", "tokens = tokens + self.out(mixed.flatten(-2))",
     "tokens = tokens + self.out(v.flatten(-2))", SEE + "test_places_differ_and_attention_reaches_everywhere"),
    ("a blind one sees", "y if self.blind else torch.cat([x, y], 1)", "torch.cat([x, y], 1)",
     SEE + "test_a_blind_one_steps_at_once_to_an_answer_that_no_candidate_moves"),
    ("the parabola is twice as steep", "away.square().flatten(1).sum(1) / 2", "away.square().flatten(1).sum(1)",
     SEE + "test_a_fresh_one_answers_with_what_is_known"),
    ("what is not known is looked at", "torch.where(seen > 0, image, 0.0)", "image",
     SEE + "test_a_context_is_an_image_and_where_it_is_known"),
]  # fmt: skip

TASK = [
    ("known pixels move", "torch.where(known, image, x)", "x",
     EDIT + "test_holes_are_filled_by_thought_and_what_is_known_stays"),
    ("answers begin elsewhere than in training", "beginning(context, noise)", "noise",
     EDIT + "test_an_energy_with_a_context_thinks"),
]  # fmt: skip

JUDGING = [
    ("hidden errors count", " * counted[:, None]).flatten(2)", ").flatten(2)",
     "tasks/test_judging.py::test_the_order_of_energies_is_compared_with_that_of_errors"),
]  # fmt: skip

ANSWERS = [
    ("the highest energy wins", "energies.argmin(1)", "energies.argmax(1)",
     "tasks/test_answers.py::test_each_name_has_its_answer"),
    ("black values are no part of the union", "(sizes + p.sum(1, keepdim=True) - both)", "sizes",
     "tasks/test_answers.py::test_no_other_body_has_a_larger_expected_overlap"),
    ("what is known is cut too", "return torch.where(counted, torch.where(white, 1.0, -1.0), mean)",
     "return torch.where(white, 1.0, -1.0)",
     "tasks/test_answers.py::test_no_other_body_has_a_larger_expected_overlap"),
]  # fmt: skip

MUTANTS = [
    Mutant(name, file, old, new, test)
    for file, group in [
        ("training/unroll.py", UNROLL), ("training/thinking.py", TRAINING),
        ("energy/transformer.py", ENERGY),
        ("tasks/think.py", TASK), ("tasks/judging.py", JUDGING), ("tasks/answers.py", ANSWERS),
    ]
    for name, old, new, test in group
]  # fmt: skip
