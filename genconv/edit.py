"""The editing commands: `python -m genconv.edit inpaint|denoise|...|interpolate|compose ...`."""

import sys
from importlib import import_module

from genconv.errors import UserError, command

COMMANDS = {
    "inpaint": "fill in what a mask hides",
    "denoise": "take white noise away",
    "upscale": "give images more pixels",
    "colourise": "give grey images their colours",
    "deblur": "undo a Gaussian blur",
    "reconstruct": "find what a generator makes of images",
    "interpolate": "go from image to image through latent space",
    "compose": "sample from several energies at once: and, or, not",
}


def main(args: list[str] | None = None) -> None:
    """Hand over to the command that the first word names."""
    name, *rest = (sys.argv[1:] if args is None else args) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: python -m genconv.edit COMMAND ...\n")
        for known, purpose in COMMANDS.items():
            print(f"  {known:11} {purpose}")
        return
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}; choose from {', '.join(COMMANDS)}")
    if name == "compose":
        import_module("genconv.tasks.compose_command").main(rest)
    elif name in ("reconstruct", "interpolate"):
        import_module("genconv.tasks.latent_command").main(name, rest)
    else:
        import_module("genconv.tasks.recover_command").main(name, rest)


if __name__ == "__main__":
    command(main)
