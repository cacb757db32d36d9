"""Memory that was freed stays with the process, so that asking for it again faults no page."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
from genconv.allocator import keep_memory
{keep}
blocks = lambda: [bytearray(64 << 20) for _ in range(2)]
blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    blocks()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep):
    words = [sys.executable, "-c", FAULTS.format(keep=keep)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is that of glibc, on Linux")
def test_freed_memory_is_asked_for_again_without_page_faults():
    # 640 MB are 163,840 pages of 4 kB, unless the kernel gives huge ones
    assert faults("keep_memory()") < 500
    if faults("") < 1000:
        pytest.skip("this C library or kernel keeps freed memory anyway")
