"""A few of the kills of `python -m tests.faults.kill`."""

import pytest

from tests.faults import kill


@pytest.mark.slow
def test_three_kills_lose_nothing(capsys):
    """Fault 1: nor later, amid anything else; and fault 19."""
    kill.main(["--times", "3", "--steps", "100", "--files", "200"])
    assert "nothing lost, nothing doubled" in capsys.readouterr().out
