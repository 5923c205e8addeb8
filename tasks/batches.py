"""Where everything of a batch lives, and what was asked for it.

``s3://…/landing/<batch_id>`` is what people put there, ``s3://…/batches/<batch_id>`` what the pipeline makes
of it. The request is written once: a second run with the same request changes nothing, one with another
request is refused until it says that the results are to be replaced.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from hpc_jobs.vector_dtypes import DTYPES
from tasks.errors import ConflictingResult, InvalidBatch, InvalidInput
from tasks.object_store import ObjectStore, ObjectUri

BATCH_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
IUPAC_BASES = re.compile(r"[ACGTURYSWKMBDHVN]*")


@dataclass(frozen=True)
class Batch:
    """Addresses of one batch. Raises :class:`InvalidBatch` for an id that cannot be part of a key."""

    data_uri: str
    batch_id: str

    def __post_init__(self) -> None:
        if not BATCH_ID.fullmatch(self.batch_id):
            raise InvalidBatch(
                self.batch_id,
                [
                    "a batch id is 1 to 64 letters, digits, dots, dashes and underscores and starts with a "
                    "letter or digit, for example 2026-11-20"
                ],
            )

    @property
    def root(self) -> ObjectUri:
        """The root of all data: landing, batches and encoders."""
        return ObjectUri.parse(self.data_uri)

    @property
    def landing(self) -> ObjectUri:
        """What was landed: manifest.json and the objects it names."""
        return self.root / "landing" / self.batch_id

    @property
    def results(self) -> ObjectUri:
        """Below it: request.json and the prefixes quality, quarantine, reads, embeddings, graph, …"""
        return self.root / "batches" / self.batch_id

    @property
    def encoders(self) -> ObjectUri:
        """The encoder registry."""
        return self.root / "encoders"


@dataclass(frozen=True)
class BatchRequest:
    """What a run asks of a batch; the same request gives the same results.

    :param encoder: encoder URI, as in :mod:`tasks.encoders`.
    :param top_k: neighbours per read.
    :param trim_quality: 3' quality-trimming cutoff (Phred); 0 trims nothing.
    :param min_length: shortest read kept after trimming, in bases.
    :param min_mean_quality: lowest mean base quality (Phred) kept after trimming.
    :param max_n_fraction: largest fraction of N (and other ambiguous) bases kept, 0 to 1.
    :param max_quarantine_fraction: the batch fails where more of its records cannot be parsed, 0 to 1.
    :param adapter: cut from the 3' end of single reads and of first mates; none if empty.
    :param adapter_mate: the same, of second mates.
    :param remove_duplicates: keep only the first of equal sequences (for pairs, of equal pairs) of a sample.
    :param window_bases: longer reads are cut into windows of so many bases; 0 cuts nothing.
    :param window_overlap_bases: bases that neighbouring windows share.
    :param vector_dtype: how vectors are stored, one of :data:`hpc_jobs.vector_dtypes.DTYPES`.
    :param verify_overlaps: align the reads that name each other as neighbours.
    :param min_overlap: shortest overlap of two reads, in columns of their alignment.
    :param min_identity: lowest share of these columns that match, 0 to 1.
    """

    encoder: str
    top_k: int
    trim_quality: int
    min_length: int
    min_mean_quality: float
    max_n_fraction: float
    max_quarantine_fraction: float
    adapter: str = ""
    adapter_mate: str = ""
    remove_duplicates: bool = False
    window_bases: int = 2000
    window_overlap_bases: int = 200
    vector_dtype: str = "float32"
    verify_overlaps: bool = True
    min_overlap: int = 50
    min_identity: float = 0.9

    def __post_init__(self) -> None:
        overlap = ("window_overlap_bases", self.window_overlap_bases, 0, self.window_bases - 1)
        wrong = [
            f"{name} is {value}, but must be {low} to {high}"
            for name, value, low, high in (
                ("top_k", self.top_k, 1, 1000),
                ("trim_quality", self.trim_quality, 0, 60),
                ("min_length", self.min_length, 1, 1_000_000),
                ("min_mean_quality", self.min_mean_quality, 0, 60),
                ("max_n_fraction", self.max_n_fraction, 0, 1),
                ("max_quarantine_fraction", self.max_quarantine_fraction, 0, 1),
                ("window_bases", self.window_bases, 0, 10_000_000),
                ("min_overlap", self.min_overlap, 1, 16_000),
                ("min_identity", self.min_identity, 0, 1),
                *([overlap] if self.window_bases else []),
            )
            if not low <= value <= high
        ]
        wrong += [
            f"{name} is {value!r}, but must be bases: A, C, G, T, N and other IUPAC codes"
            for name, value in (("adapter", self.adapter), ("adapter_mate", self.adapter_mate))
            if not IUPAC_BASES.fullmatch(value)
        ]
        if self.vector_dtype not in DTYPES:
            wrong.append(f"vector_dtype is {self.vector_dtype!r}, but must be one of: {', '.join(DTYPES)}")
        if wrong:
            raise InvalidInput("; ".join(wrong))


def record_request(store: ObjectStore, batch: Batch, request: BatchRequest, landing_sha256: str) -> bool:
    """Write the batch's request once; True if it is new, False if the same request stands there already.

    :param landing_sha256: checksum of the landing manifest, so that a batch landed anew is another request.
    :raises ConflictingResult: another request stands there.
    """
    asked = {**asdict(request), "landing_sha256": landing_sha256}
    uri = batch.results / "request.json"
    if store.put_json(uri, asked, if_absent=True):
        return True
    known: dict[str, Any] = store.get_json(uri)
    if known == asked:
        return False
    changed = ", ".join(
        f"{name} was {known.get(name)!r} and is now {asked.get(name)!r}"
        for name in sorted(known.keys() | asked.keys())
        if known.get(name) != asked.get(name)
    )
    raise ConflictingResult(
        f"batch {batch.batch_id!r} was already run with another request: {changed}. "
        "Set the parameter replace_results to compute it anew, or land the reads under another batch id."
    )


def read_request(store: ObjectStore, batch: Batch) -> BatchRequest:
    """The request that :func:`record_request` wrote."""
    fields = store.get_json(batch.results / "request.json")
    fields.pop("landing_sha256")
    return BatchRequest(**fields)
