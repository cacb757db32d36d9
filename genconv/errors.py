"""The one exception that is the user's business."""

import sys
from collections.abc import Callable

__all__ = ["UserError", "command"]


class UserError(Exception):
    """Bad input, in one sentence that names the file, key or shape and the mend.

    Commands print it without a traceback and exit with code 2.
    """


def command(main: Callable[[], None]) -> None:
    """Run a command's `main`, turning a `UserError` into one line on stderr and exit code 2.

    An interrupt (Ctrl-C) exits with 130, as shells expect.
    """
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
