"""The editing commands: `python -m genconv.edit compose`."""

import sys
from importlib import import_module

from genconv.errors import UserError, command

COMMANDS = {"compose": "draw from energies joined by and, or, not, and from constraints"}


def main(args: list[str] | None = None) -> None:
    """Hand over to the command that the first word names."""
    name, *rest = (sys.argv[1:] if args is None else args) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: python -m genconv.edit COMMAND ...\n")
        for known, purpose in COMMANDS.items():
            print(f"  {known:8} {purpose}")
        return
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}; choose from {', '.join(COMMANDS)}")
    import_module(f"genconv.tasks.{name}_command").main(rest)


if __name__ == "__main__":
    command(main)
