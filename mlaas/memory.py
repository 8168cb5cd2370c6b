"""Memory that a process is done with, back to the system."""

import ctypes
import os

_VARIABLE = "MALLOC_MMAP_THRESHOLD_"
_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_BYTES = 1024 * 1024


def give_back_large_buffers() -> None:
    """For this process and those that it starts: pictures' buffers do not stay when they are freed.

    By itself glibc raises the size from which on it gives memory back, up to 32 MiB, and what is below stays
    in pieces between what is in use. Where the C library is another, or the variable is set, nothing is done.
    See mallopt(3).
    """
    if _VARIABLE in os.environ:
        return
    os.environ[_VARIABLE] = str(_LARGE_BYTES)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
