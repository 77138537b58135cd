"""Freed memory goes back to the system, with glibc; elsewhere nothing is done."""

import contextlib
import ctypes
import gc
from collections.abc import Iterator

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
AT_ONCE, KEPT = 2**20, 2**25  # bytes from which on a freed tensor goes back at once, and glibc's largest default


def give_back() -> None:
    """From now on freed tensors go back to the system at once, so that what is estimated is what is taken.

    glibc keeps tensors below 32 MiB for later, with gaps that add up to several times what is in use.
    """
    _set_threshold(AT_ONCE)


@contextlib.contextmanager
def giving_back() -> Iterator[None]:
    """While the context is open, `give_back`: tensors made in it take no memory once they are freed.

    Yields
    ------
    None
        Afterwards tensors are kept for later again, which is faster while a model runs.
    """
    give_back()
    try:
        yield
    finally:
        _set_threshold(KEPT)


def collect() -> None:
    """Free what nothing but itself refers to, and `trim`: where all of a model is done with."""
    gc.collect()
    trim()


def trim() -> None:
    """Give what is free back to the system now."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set_threshold(size: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, size)
