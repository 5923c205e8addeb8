"""The compiled part of the kernel, ``topk.c``: built by the ordinary C compiler, loaded with ctypes.

``python -m hpc_jobs.mpi_dna_seq.build`` builds it ahead; otherwise the first use on a kind of machine does. The
library's name carries a checksum of the source, of the compiler's options and of the processor's features, so
that an old build is never loaded and machines of several kinds can share one directory.
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
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("topk.c")
OPTIONS = ("-O3", "-std=c11", "-shared", "-fPIC")
FOR_THIS_PROCESSOR = "-march=native"


class BuildError(Exception):
    """There is no C compiler, it failed, or its output cannot be written."""


class BestK(ctypes.Structure):
    """``best_k`` of topk.c: addresses of the lists of a block's rows, or of one tile's."""

    _fields_ = (("score", ctypes.c_void_p), ("id", ctypes.c_void_p), ("threshold", ctypes.c_void_p))


@cache
def load() -> ctypes.CDLL:
    """The library with its functions typed; built first where this machine has no build of this source."""
    library = ctypes.CDLL(str(build()))
    number, address = ctypes.c_int64, ctypes.c_void_p
    library.merge_tile.argtypes = [address, number, number, address, address, number, number, number]
    library.merge_tile.argtypes += [BestK, BestK, number, ctypes.c_float]
    library.merge_tile.restype = number
    library.merge_best.argtypes = [BestK, BestK, number, number, ctypes.c_float]
    library.merge_best.restype = None
    library.lengths.argtypes = [address, number, number, address]
    library.lengths.restype = None
    return library


def build() -> Path:
    """The library's path, after building it where it is not there; safe for many processes at once.

    :raises BuildError: with the compiler's own words.
    """
    target = SOURCE.with_name(f"topk-{platform.machine()}-{_fingerprint()}.so")
    if target.exists():
        return target
    compiler = _compiler()
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".topk-", suffix=".so")
    except OSError as error:
        raise BuildError(
            f"{target.parent} cannot be written ({error}); run `python -m hpc_jobs.mpi_dna_seq.build` once as its "
            "owner, on a machine like this one"
        ) from error
    os.close(handle)
    try:
        _compile(compiler, Path(temporary))
        Path(temporary).chmod(0o755)
        Path(temporary).replace(target)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return target


def _compile(compiler: str, target: Path) -> None:
    """Compile for this very processor; a compiler that refuses that option builds the portable form."""
    for options in ((*OPTIONS, FOR_THIS_PROCESSOR), OPTIONS):
        command = [compiler, *options, "-o", str(target), str(SOURCE), "-lm"]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
        if outcome.returncode == 0:
            return
    raise BuildError(f"{compiler} could not compile {SOURCE}:\n{outcome.stderr.strip()}")


def _compiler() -> str:
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    raise BuildError(
        f"there is no C compiler to build {SOURCE}: install one (Debian: apt-get install gcc libc6-dev, "
        "Amazon Linux: dnf install gcc), or name one in the environment variable CC"
    )


def _fingerprint() -> str:
    digest = hashlib.sha256(SOURCE.read_bytes())
    digest.update(" ".join((*OPTIONS, FOR_THIS_PROCESSOR)).encode())
    digest.update(" ".join(sorted(_processor_features())).encode())
    return digest.hexdigest()[:12]


def _processor_features() -> set[str]:
    """The processor's instruction sets as Linux names them, such as ``avx2``; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    for line in lines:
        if line.startswith(("flags", "Features")):  # x86, ARM
            return set(line.partition(":")[2].split())
    return set()


if __name__ == "__main__":
    try:
        print(build())
    except BuildError as problem:
        sys.exit(str(problem))
