"""The vectors of a store as they are compared: finite and, for the cosine, of length 1 or 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpc_jobs import store
from hpc_jobs.mpi_dna_seq import build
from hpc_jobs.mpi_dna_seq.forms import LONGEST
from hpc_jobs.mpi_dna_seq.schedule import Span

NAMED_READS = 5


class StoredVectors:
    """Reads rows of a store; what a row becomes does not depend on the other rows read.

    :param unit: bring them to length 1; zero vectors stay what they are.
    """

    def __init__(self, directory: Path, manifest: store.StoreManifest, *, unit: bool) -> None:
        self._directory = directory
        self._said_to_be_unit = unit and manifest.normalised
        self._divide = unit and not manifest.normalised

    def read(self, span: Span, into: np.ndarray) -> None:
        """Fill ``into``, float32 (rows, dim); raises StoreError with the ids of reads that cannot be compared."""
        lengths = np.empty(span.rows)
        for start in range(0, span.rows, store.ROW_GROUP_ROWS):
            stop = min(start + store.ROW_GROUP_ROWS, span.rows)
            rows, length = into[start:stop], lengths[start:stop]
            store.read_vectors(self._directory, span.first + start, span.first + stop, into=rows)
            build.load().lengths(rows.ctypes.data, *rows.shape, length.ctypes.data)
            if self._divide:
                divisors = np.where((length > 0) & np.isfinite(length), length, 1)
                np.divide(rows, divisors[:, None], out=rows, casting="same_kind")
        self._refuse(~np.isfinite(lengths), "hold NaN or infinity", span)
        self._refuse(lengths > LONGEST, f"are longer than {LONGEST:.3g}", span)
        if self._said_to_be_unit:
            wrong = (lengths > 0) & (np.abs(lengths - 1) > store.NORM_TOLERANCE)
            self._refuse(wrong, "are not of length 1 although the manifest says so", span)

    def _refuse(self, wrong: np.ndarray, what: str, span: Span) -> None:
        """Raise a StoreError with the read ids of the wrong rows, if there are any."""
        rows = span.first + np.flatnonzero(wrong)
        if not len(rows):
            return
        named = [
            f"{store.read_ids(self._directory, row, row + 1)[0]} (row {row})"
            for row in rows[:NAMED_READS].tolist()
        ]
        more = f" and {len(rows) - NAMED_READS} more" if len(rows) > NAMED_READS else ""
        raise store.StoreError(
            f"{len(rows)} vectors {what}: {', '.join(named)}{more}; embed these reads again or leave them out"
        )
