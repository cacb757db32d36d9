"""The export command: `python -m genconv.export runs/digits digits/`."""

import argparse

from genconv.checkpoint import read, write
from genconv.errors import command

__all__ = ["main"]


def main(args: list[str] | None = None) -> None:
    """Write a checkpoint's energy as `energy.safetensors` and `energy.json`."""
    parser = argparse.ArgumentParser(
        prog="python -m genconv.export",
        description="Write an energy as safetensors + JSON, without optimiser, chains or code.",
    )
    parser.add_argument("checkpoint", help="checkpoint, or run folder")
    parser.add_argument("folder", help="where to")
    parser.add_argument("--half", action="store_true", help="weights in 16 bits, half as large")
    options = parser.parse_args(args)
    write(read(options.checkpoint, "cpu"), options.folder, half=options.half)
    print(f"exported: {options.folder}")


if __name__ == "__main__":
    command(main)
