"""The evaluation commands: `python -m genconv.eval ood|quality|score|steps|robustness|...`."""

import sys
from importlib import import_module

from genconv.errors import UserError, command

COMMANDS = {
    "ood": "how well an energy tells a set of images from others",
    "quality": "FID, IS, KID, precision, recall, density and coverage of samples",
    "score": "a number for every image of a folder, and which do not belong",
    "steps": "how good samples are after fewer and more Langevin steps, and how many will do",
    "robustness": "how many images are classified rightly when the worst is done to them",
    "likelihood": "the log-likelihood of images in nats, for Boltzmann machines",
}


def main(args: list[str] | None = None) -> None:
    """Hand over to the command that the first word names."""
    name, *rest = (sys.argv[1:] if args is None else args) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: python -m genconv.eval COMMAND ...\n")
        for known, purpose in COMMANDS.items():
            print(f"  {known:10} {purpose}")
        return
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}; choose from {', '.join(COMMANDS)}")
    import_module(f"genconv.eval.{name}_command").main(rest)


if __name__ == "__main__":
    command(main)
