"""How fast genconv is: beside the plain loop, beside its peers, beside the machine.

    python -m tests.benchmarks --json speed.json --picture speed.png

Variants of the same work on the same network take turns, and a ratio is the median over rounds, so
that a busy machine slows all alike. On a CPU the time is that of the process, and one thread is the
default: two threads that spin for each other while another process runs would measure that process.
"""
