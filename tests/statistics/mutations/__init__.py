"""Ways to break genconv, each with the tests that must notice: see `tests.statistics.mutants`."""

from tests.statistics.mutations import composition, evaluation, sampling, thinking, training

ROOMS = (sampling, training, evaluation, thinking, composition)
MUTANTS = [mutant for room in ROOMS for mutant in room.MUTANTS]
