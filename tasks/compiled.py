"""Loops over bases, compiled by numba on their first call and kept on disk for the processes that follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a function of arrays and numbers; it runs without the interpreter's lock.

    The machine code is kept beside the source, or in ``NUMBA_CACHE_DIR``: compiling all of phase 1 takes a
    process nine seconds, loading it one. Where nothing can be written each process compiles anew.
    """
    try:
        return cast(F, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:  # numba finds no directory that it may write to
        return cast(F, numba.njit(nogil=True)(function))
