"""Index expressions of Slurm's job arrays: what ``sbatch --array`` takes, and what Slurm prints of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

#: Slurm's own limit on ``MaxArraySize``; a larger number is a mistake, and must not fill memory.
LARGEST_INDEX = 4_000_000


@dataclass(frozen=True)
class JobArray:
    """Which elements a job array has.

    :param indices: ascending, each once.
    :param at_once: how many elements may run at the same time; ``None`` for no limit.
    """

    indices: tuple[int, ...]
    at_once: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an expression such as ``0-19%4``, ``1,3,7`` or ``0-20:5``.

        :raises ValueError: if it is none, or names an index that no Slurm has.
        """
        names, percent, at_once = text.strip().partition("%")
        if percent and not re.fullmatch(r"[1-9]\d*", at_once):
            raise ValueError(f"array {text!r}: what follows '%' must be a number of elements, at least 1")
        indices: set[int] = set()
        for part in names.split(","):
            match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10})(?::([1-9]\d{0,9}))?)?", part.strip())
            if match is None:
                raise ValueError(f"array {text!r}: {part!r} is no index, range or range with step")
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first or last > LARGEST_INDEX:
                raise ValueError(f"array {text!r}: {part!r} is empty, or goes beyond {LARGEST_INDEX}")
            indices.update(range(first, last + 1, int(match[3] or 1)))
        return cls(tuple(sorted(indices)), int(at_once) if percent else None)

    def only(self, indices: Iterable[int]) -> Self:
        """Return the array of these elements alone."""
        return type(self)(tuple(sorted(set(indices) & set(self.indices))), self.at_once)

    def __str__(self) -> str:
        limit = "" if self.at_once is None else f"%{self.at_once}"
        return ranges(self.indices) + limit


def ranges(indices: Iterable[int]) -> str:
    """Write indices as Slurm does: ``0-3,7``."""
    parts: list[list[int]] = []
    for index in sorted(indices):
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
