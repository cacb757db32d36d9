"""What the user is told."""

import argparse

import pytest

from genconv.errors import UserError, at_least


@pytest.mark.parametrize("value", [0, -1, float("nan"), [3, 0]])
def test_a_flag_below_its_bound_is_named(value):
    options = argparse.Namespace(batch_size=value, n=1, steps=None)
    at_least(options, n=1, steps=1, factor=2)
    with pytest.raises(UserError, match=r"--batch-size must be at least 1, not (0|-1|nan)"):
        at_least(options, n=1, batch_size=1)
    with pytest.raises(UserError, match=r"^-n must be at least 2"):
        at_least(options, n=2)


def test_an_error_is_one_line_whatever_a_library_said():
    assert str(UserError("cannot read a.npz: first\n\n  second; mend it")) == (
        "cannot read a.npz: first second; mend it"
    )
