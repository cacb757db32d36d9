"""Mistakes in how energies are composed, on the way and at its end."""

from tests.statistics.mutations.mutant import Mutant

TESTS = "tasks/test_compose_command.py::"
REDRAWN = TESTS + "test_redrawing_goes_back_to_the_noise_of_a_time"
STAGED = TESTS + "test_weights_change_on_the_way"
SUREST = TESTS + "test_of_several_draws_the_surest_is_kept"
RATHER = TESTS + "test_this_rather_than_those"
NOT = TESTS + "test_not_is_the_first_and_none_of_the_others"

CLAIMS = [
    ("any rival will do", "in self.rivals]).amin(0)", "in self.rivals]).amax(0)", SUREST),
    ("the best claim counts", "for claim in self.claims]).amax(0)",
     "for claim in self.claims]).amin(0)", SUREST),
    ("the least sure draw is kept", "(margin < least)", "(margin > least)", SUREST),
    ("a draw is compared with the first only", "least = torch.where(better, margin, least)",
     "pass", SUREST),
    ("all draws begin at the same noise", "x = self.start(len(x), generator=generator)", "pass",
     SUREST),
    ("one draw too many", "range(self.draws - 1)", "range(self.draws)", SUREST),
    ("a diverged chain stays", "(margin < least) | least.isnan()", "margin < least",
     TESTS + "test_a_diverged_draw_is_never_the_surest"),
]  # fmt: skip

STAGES = [
    ("stages begin at the first step", "self.chain.after(begin)", "self.chain.after(0)",
     TESTS + "test_stages_keep_the_schedule_of_the_chain"),
    ("the first energy goes on", "go(x, begin, end, energy)", "go(x, begin, end, self.energy)",
     STAGED),
    ("steps are counted anew in each stage", "callback(done + step, x)", "callback(step, x)",
     STAGED),
    ("a second way has no new noise", "(1 - t) * noise", "0 * noise", REDRAWN),
    ("a second way begins under the first energy", "steps, energies[-1])", "steps, energies[0])",
     REDRAWN),
]  # fmt: skip

COMMAND = [
    ("rivals count in full", "[-w / (n or 1)] * n", "[-w] * n", RATHER),
    ("not asks for all", "w if kept and i == 0 else -w", "w", NOT),
    ("claims lose their rivals", "for _ in range(n)])", "for _ in range(n)][:1])", SUREST),
    ("noise has no energy", "mean + offset for mean", "offset for mean",
     TESTS + "test_an_or_begins_where_all_are_alike_over_the_noise"),
]  # fmt: skip

MUTANTS = [
    Mutant(name, file, old, new, test)
    for file, found in [
        ("tasks/claims.py", CLAIMS),
        ("tasks/stages.py", STAGES),
        ("tasks/compose_command.py", COMMAND),
    ]
    for name, old, new, test in found
]
