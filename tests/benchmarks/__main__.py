"""The speed benchmark, see `tests.benchmarks.speed`: `python -m tests.benchmarks`."""

from tests.benchmarks.speed.command import main

if __name__ == "__main__":
    main()
