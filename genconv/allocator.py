"""What the C library does with memory that was freed."""

import ctypes
import sys

__all__ = ["keep_memory"]

# names of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
TWO_GIGABYTES = 2**31 - 1


def keep_memory() -> None:
    """Have this process keep the memory that it frees, up to 2 GB, for what it asks for next.

    glibc gives large blocks back to the kernel at once. A chain on a CPU frees them and asks for
    them anew at each step, and every page that it gets back is a page fault: a tenth to a fifth of
    the time. Commands call this; it does nothing where the C library is another one.
    """
    # also on Linux it may be another one
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        # no block by mmap, which would be unmapped when freed; and a heap that shrinks late
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, TWO_GIGABYTES)
