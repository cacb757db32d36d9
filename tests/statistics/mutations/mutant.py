"""What a mutant is."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A mistake that someone could make: `old`, found once in `file`, is replaced by `new`.

    Attributes:
        name: what the mistake is.
        file: below genconv/.
        old: text that occurs exactly once.
        new: text in its place.
        test: `path::test` below tests/, which must then fail.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
