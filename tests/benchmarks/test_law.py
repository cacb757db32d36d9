"""bfloat16 chains sample the law that float32 chains sample, on an energy that was trained."""

import statistics

import pytest

from genconv.checkpoint import read
from tests.benchmarks.speed.law import laws


@pytest.mark.slow
def test_bfloat16_and_float32_chains_are_no_further_apart_than_two_seeds():
    found = dict(laws(read("digits", "cpu"), 120))
    for place, slack in [(0, 0.1), (1, 0.15)]:
        noise, ours = ([pair[place] for pair in found[name]] for name in ("float32", "bfloat16"))
        # gaps are in standard deviations already, distances are compared with each other
        bound = max(noise) + slack * (1 if place == 0 else max(noise))
        assert statistics.mean(ours) < bound, (noise, ours)
