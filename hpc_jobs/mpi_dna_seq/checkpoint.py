"""A checkpoint as files: what a run had found after so many units, one file per member, ``checkpoint.json`` last.

The files bear the number of units in their names. ``checkpoint.json`` names those that count, with their
SHA-256, and what they are of: the embedding store and every parameter that the lists depend on. It is
replaced whole, after its files are on the disk, and only then the former ones are removed. So whenever a run is
killed, one checkpoint is there, the former or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpc_jobs.checked_file import sha256_of, write_whole

FORMAT = "strandloop-knn-checkpoint"
MANIFEST = "checkpoint.json"


class CheckpointError(Exception):
    """The checkpoint is of another computation, or damaged."""


class Checkpoint:
    """The checkpoint in one directory.

    :param of: what is computed, JSON values; a checkpoint of anything else is refused.
    """

    def __init__(self, directory: Path, of: Mapping[str, Any]) -> None:
        self.directory = directory
        self._of = dict(of)
        self._files: dict[str, str] = {}

    def find(self) -> tuple[int, int] | None:
        """Units that are done and pairs compared by then; None where there is no checkpoint.

        :raises CheckpointError: it is of another computation, or cannot be read.
        """
        path = self.directory / MANIFEST
        try:
            fields = json.loads(path.read_bytes())
            found, self._files = dict(fields["of"]), dict(fields["files"])
            done, pairs, known = int(fields["units"]), int(fields["pairs"]), fields["format"] == FORMAT
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error!r}): remove {self.directory} to compute from the beginning"
            ) from error
        other = [name for name in self._of if found.get(name) != self._of[name]]
        if other or not known:
            difference = ", ".join(f"{name} {found.get(name)} instead of {self._of[name]}" for name in other)
            raise CheckpointError(
                f"{self.directory} holds the checkpoint of another computation ({difference or 'other format'}): "
                "start with the same parameters, store and ranks to go on with it, name another directory, or "
                "remove it"
            )
        return done, pairs

    def read(self, member: str, units: int, arrays: Sequence[np.ndarray]) -> None:
        """Fill arrays with what a member wrote; raises CheckpointError where its file is damaged."""
        path = self.directory / _name(member, units)
        try:
            if sha256_of(path) != self._files.get(path.name):
                raise CheckpointError(
                    f"{path} is not as {MANIFEST} says: remove {self.directory}, and start again"
                )
            with path.open("rb") as source:
                for array in arrays:
                    source.readinto(_bytes_of(array))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error

    def write(self, member: str, units: int, arrays: Sequence[np.ndarray]) -> tuple[str, str]:
        """Write the file of one member; gives its name and SHA-256, for :meth:`commit`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / _name(member, units)
        temporary = path.with_name(f".{path.name}")
        with temporary.open("wb") as target:
            for array in arrays:
                target.write(_bytes_of(array))
            target.flush()
            os.fsync(target.fileno())
        checksum = sha256_of(temporary)
        temporary.replace(path)
        return path.name, checksum

    def commit(self, units: int, pairs: int, files: Mapping[str, str]) -> None:
        """Make the files of all members the checkpoint, and remove those of the former one."""
        fields = {"format": FORMAT, "of": self._of, "units": units, "pairs": pairs, "files": dict(files)}
        write_whole(self.directory / MANIFEST, json.dumps(fields, indent=2).encode() + b"\n")
        self._files = dict(files)
        self._remove_files(but=self._files)

    def remove(self) -> None:
        """Remove the checkpoint, and its directory where it holds nothing else."""
        (self.directory / MANIFEST).unlink(missing_ok=True)
        self._remove_files(but={})
        if self.directory.is_dir() and not any(self.directory.iterdir()):
            self.directory.rmdir()

    def _remove_files(self, *, but: Mapping[str, str]) -> None:
        for pattern in ("*.lists", ".*.lists"):
            for path in self.directory.glob(pattern):
                if path.name not in but:
                    path.unlink(missing_ok=True)


def _name(member: str, units: int) -> str:
    return f"{units:08d}-{member}.lists"


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
