"""Ways to break genconv, each with the tests that must notice: see `tests.statistics.mutants`."""

from tests.statistics.mutations import evaluation, sampling, thinking, training

MUTANTS = [*sampling.MUTANTS, *training.MUTANTS, *evaluation.MUTANTS, *thinking.MUTANTS]
