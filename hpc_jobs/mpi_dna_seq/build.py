"""The compiled part of the kernel: built by the ordinary C compiler, loaded with ctypes.

``python -m hpc_jobs.mpi_dna_seq.build`` builds it ahead; otherwise the first use does. ``compare.c`` and
``forms.c`` are compiled once for each *path*, an instruction set, and one library holds all of them: built on a
head node, it runs on every node of the same architecture, and each takes the best path that its processor has.
The environment variable ``MPI_DNA_SEQ_PATH`` names another (``portable``, ``avx2``, ``avx512``, ``dotprod``);
the answers are the same. The library's name carries a checksum of the sources and options: an old build is never
loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent
OF_EACH_PATH = ("compare.c", "forms.c")
OPTIONS = ("-O3", "-std=gnu11", "-fPIC", "-ffp-contract=off")  # scores must not depend on fused operations
PATHS = {
    "x86_64": {
        "portable": (),
        "avx2": ("-mavx2", "-mfma"),
        "avx512": ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni"),
    },
    "aarch64": {"portable": (), "dotprod": ("-march=armv8.2-a+dotprod",)},
}
CHOSEN = "MPI_DNA_SEQ_PATH"


class BuildError(Exception):
    """There is no C compiler, it failed, its output cannot be written, or a path cannot run here."""


class BestK(ctypes.Structure):
    """``best_k`` of pairs.h: addresses of the lists of a block's rows."""

    _fields_ = (("score", ctypes.c_void_p), ("id", ctypes.c_void_p), ("threshold", ctypes.c_void_p))


class Bounds(ctypes.Structure):
    """``bounds`` of pairs.h: addresses of what each row adds to a bound."""

    _fields_ = (
        ("scale", ctypes.c_void_p),
        ("error", ctypes.c_void_p),
        ("length", ctypes.c_void_p),
        ("offset", ctypes.c_void_p),
    )


class Side(ctypes.Structure):
    """``side`` of pairs.h: addresses of a block, its form and the bounds of both."""

    _fields_ = (
        ("first_row", ctypes.c_int64),
        ("vectors", ctypes.c_void_p),
        ("panels", ctypes.c_void_p),
        ("shifts", ctypes.c_void_p),
        ("form", Bounds),
        ("vector", Bounds),
        ("best", BestK),
    )


class Tally(ctypes.Structure):
    """``tally`` of pairs.h: what a comparison took."""

    _fields_ = (
        ("proposed", ctypes.c_int64),
        ("scored", ctypes.c_int64),
        ("inserted", ctypes.c_int64),
        ("merge_seconds", ctypes.c_double),
    )


@dataclass(frozen=True)
class Kernel:
    """The functions of one path, as compare.c and forms.c describe them."""

    path: str
    compare_tile: Any
    workspace: Any
    merge_best: Any
    score_pairs: Any
    quantise: Any
    bound_fp32: Any


@cache
def load() -> ctypes.CDLL:
    """The library; built first where there is no build of these sources."""
    library = ctypes.CDLL(str(build()))
    number, address = ctypes.c_int64, ctypes.c_void_p
    library.lengths.argtypes = [address, number, number, address]
    library.lengths.restype = None
    library.runnable_paths.argtypes = []
    library.runnable_paths.restype = ctypes.c_char_p
    return library


def runnable() -> tuple[str, ...]:
    """The paths that this processor has, best first."""
    compiled = PATHS.get(platform.machine(), {"portable": ()})
    return tuple(path for path in load().runnable_paths().decode().split() if path in compiled)


@cache
def kernel(path: str | None = None) -> Kernel:
    """The functions of a path: the named one, or that of ``MPI_DNA_SEQ_PATH``, or the best one.

    :raises BuildError: this processor does not have it.
    """
    chosen = path or os.environ.get(CHOSEN) or runnable()[0]
    if chosen not in runnable():
        raise BuildError(
            f"this processor cannot run the path {chosen!r}, but {', '.join(runnable())}; unset {CHOSEN}"
        )
    number, address, yes = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
    side, tally = ctypes.POINTER(Side), ctypes.POINTER(Tally)
    arguments = {
        "compare_tile": [
            side,
            number,
            number,
            side,
            number,
            number,
            yes,
            yes,
            number,
            number,
            address,
            tally,
        ],
        "workspace": [number, number],
        "merge_best": [BestK, BestK, number, number],
        "score_pairs": [side, side, address, address, number, yes, number, number, tally],
        "quantise": [address, number, number, address, yes, *[address] * 7],
        "bound_fp32": [address, number, number, yes, *[address] * 4],
    }
    functions = {name: getattr(load(), f"{name}_{chosen}") for name in arguments}
    for name, function in functions.items():
        function.argtypes = arguments[name]
        function.restype = number if name == "workspace" else None
    return Kernel(chosen, **functions)


def build() -> Path:
    """The library's path, after building it where it is not there; safe for many processes at once.

    :raises BuildError: with the compiler's own words.
    """
    target = SOURCES / f"topk-{platform.machine()}-{_fingerprint()}.so"
    if target.exists():
        return target
    compiler = _compiler()
    try:
        scratch = tempfile.TemporaryDirectory(dir=SOURCES, prefix=".topk-")
    except OSError as error:
        raise BuildError(
            f"{SOURCES} cannot be written ({error}); run `python -m hpc_jobs.mpi_dna_seq.build` once as its owner"
        ) from error
    with scratch as folder:
        objects = [_compile(compiler, "paths.c", (), Path(folder, "paths.o"))]
        for path, options in PATHS.get(platform.machine(), {"portable": ()}).items():
            for source in OF_EACH_PATH:
                object_file = Path(folder, f"{path}-{source}.o")
                objects.append(_compile(compiler, source, (*options, f"-DPATH={path}"), object_file))
        library = Path(folder, "topk.so")
        _run([compiler, "-shared", "-o", str(library), *map(str, objects), "-lm"])
        library.replace(target)
    return target


def _compile(compiler: str, source: str, options: tuple[str, ...], target: Path) -> Path:
    _run([compiler, *OPTIONS, *options, "-c", "-o", str(target), str(SOURCES / source)])
    return target


def _run(command: list[str]) -> None:
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    if outcome.returncode:
        raise BuildError(f"`{' '.join(command)}` failed:\n{outcome.stderr.strip()}")


def _compiler() -> str:
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    raise BuildError(
        f"there is no C compiler to build {SOURCES}: install one (Debian: apt-get install gcc libc6-dev, "
        "Amazon Linux: dnf install gcc), or name one in the environment variable CC"
    )


def _fingerprint() -> str:
    digest = hashlib.sha256(repr((OPTIONS, PATHS)).encode())
    for source in ("pairs.h", "paths.c", *OF_EACH_PATH):
        digest.update((SOURCES / source).read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    try:
        print(build())
    except BuildError as problem:
        sys.exit(str(problem))
