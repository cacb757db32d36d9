"""Bites become smaller, for good, and the error lets go of what filled the memory."""

import sys

import pytest
import torch

from genconv.errors import UserError
from genconv.memory import Bites

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


def room_for(most, error, sizes):
    def work(size):
        assert sys.exc_info() == (None, None, None)
        sizes.append(size)
        if size > most:
            raise error
        return "done"

    return work


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_halves_until_it_fits_and_remembers(error):
    bites, sizes = Bites(11), []
    assert bites.take(room_for(2, error, sizes), "one") == "done"
    assert bites.take(room_for(2, error, sizes), "one") == "done"
    assert sizes == [11, 6, 3, 2, 2]


def test_no_room_for_one_is_said_and_other_errors_are_not_hidden():
    with pytest.raises(UserError, match="no memory for one image of shape 7; free some"):
        Bites(4).take(room_for(0, MemoryError(), []), "one image of shape 7")
    with pytest.raises(RuntimeError, match="shapes"):
        Bites(4).take(room_for(0, RuntimeError("shapes cannot be multiplied"), []), "one")
