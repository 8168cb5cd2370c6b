"""A process that had many large buffers at once."""

import os
import platform
import subprocess
import sys

import pytest

# Each large buffer lies below a small one that stays; importing leaves holes, which are filled first.
HOLD_AND_FREE = """
import time
from pathlib import Path
{first}
filling = [bytearray(1000) for _ in range(20_000)]
del (once := [bytearray(24 << 20)])[:]
large, small = [], []
for _ in range(50):
    large.append(bytearray(b"x") * (2 << 20))
    small.append(bytearray(1000))
large.clear()
until = time.monotonic() + {patience_s}
while (resident := int(Path("/proc/self/statm").read_text().split()[1]) * 4096) > {enough} << 20:
    if time.monotonic() > until:
        break
    time.sleep(0.1)
print(resident)
"""
# A picture of four megabytes, and how often the kernel gave a page for the last hundred of them.
PAGES = 1024
PICTURE_AFTER_PICTURE = """
from resource import RUSAGE_SELF, getrusage
{first}
for number in range(200):
    if number == 100:
        before = getrusage(RUSAGE_SELF).ru_minflt
    bytearray(b"x") * (4 << 20)
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""
LOADED = "from mlaas.serving import reuse_buffers"
OURS = LOADED + "; reuse_buffers()"
ITS_CHILDS = (
    OURS + "\nimport subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {code!r}]).returncode)"
)
PATIENCE_S = 30


def output(code: str, **environment: str) -> int:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=True
    )
    return int(run.stdout)


def resident_mib(first: str, patience_s: float = 0, enough: float = 0, **environment: str) -> float:
    """After the buffers have been freed, and at most `enough` MiB or patience_s later."""
    code = HOLD_AND_FREE.format(first=first, patience_s=patience_s, enough=int(enough))
    return output(code, **environment) / 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_it_returns_what_lies_between_what_is_still_in_use() -> None:
    kept = resident_mib(LOADED)
    assert kept > 100
    assert resident_mib(OURS, PATIENCE_S, kept - 90) < kept - 90


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_it_and_its_children_use_the_same_memory_for_one_picture_after_another() -> None:
    faults = PICTURE_AFTER_PICTURE.format(first="")
    returning = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "1048576"}
    assert output(faults, **returning) > 100 * PAGES
    assert output(PICTURE_AFTER_PICTURE.format(first=OURS)) < 10 * PAGES
    assert output(ITS_CHILDS.format(code=faults)) < 10 * PAGES


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_the_environment_says_holds() -> None:
    assert resident_mib(OURS, 3, 100, MALLOC_MMAP_THRESHOLD_=str(32 << 20)) > 100
