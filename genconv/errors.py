"""The exceptions that are the user's business, what flags may be, and how commands end."""

import argparse
import signal
import sys
from collections.abc import Callable
from types import FrameType

from genconv.allocator import keep_memory

__all__ = ["DivergedError", "UserError", "at_least", "command", "sentence"]


class UserError(Exception):
    """Bad input, in one sentence that names the file, key or shape and the mend.

    Commands print it without a traceback and exit with its code, 2.
    """

    code = 2

    def __init__(self, sentence: str) -> None:
        # what libraries say within it may go over several lines
        super().__init__(" ".join(str(sentence).split()))


class DivergedError(UserError):
    """Training that cannot be saved by going back, in one sentence; commands exit with code 3."""

    code = 3


def sentence(error: Exception) -> str:
    """Return what a library's exception says, in one line that is no longer than 300 characters."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return " ".join(str(error).split())[:300]


def at_least(options: argparse.Namespace, **bounds: float) -> None:
    """Raise a UserError if a number, or one of a list, is below its flag's bound or is NaN.

    Args:
        options: a command's; flags that it has not, or that were not given, have no bound.
        bounds: least values by the names of the options.
    """
    for name, least in bounds.items():
        given = getattr(options, name, None)
        for value in given if isinstance(given, list) else [given]:
            # not `value < least`, which a NaN would pass
            if value is not None and not value >= least:
                flag = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} must be at least {least}, not {value}")


def command(main: Callable[[], None]) -> None:
    """Run a command's `main`, turning a `UserError` into one line on stderr and its exit code.

    Ctrl-C exits with 130 and SIGTERM with 143, as shells expect; both leave by way of every
    `finally`, so that no temporary file stays.
    """

    def terminate(number: int, frame: FrameType | None) -> None:
        # once: a second one, while the first is being seen to, would tear that
        signal.signal(number, signal.SIG_IGN)
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, terminate)
    keep_memory()
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)
