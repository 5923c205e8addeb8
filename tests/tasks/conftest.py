"""Small batches, landed by hand so that they can also be wrong."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tasks.batches import Batch, BatchRequest
from tasks.landing import LandedFile, LandedSample, LandingManifest
from tasks.object_store import ObjectStore
from tasks.parts import Part, parts_of


@pytest.fixture
def batch(s3_root: str) -> Batch:
    return Batch(s3_root, "2026-11-20")


@pytest.fixture
def store(s3_root: str) -> ObjectStore:
    return ObjectStore()


@pytest.fixture
def request_of() -> Callable[..., BatchRequest]:
    def request(**changes: Any) -> BatchRequest:
        usual = {"encoder": "registry://kmer-mlp", "top_k": 5, "trim_quality": 20, "min_length": 20}
        usual |= {"min_mean_quality": 15.0, "max_n_fraction": 0.1, "max_quarantine_fraction": 0.05}
        return BatchRequest(**{**usual, **changes})

    return request


@pytest.fixture
def fastq() -> Callable[..., bytes]:
    """FASTQ text of random reads of good quality; the same seed gives the same reads."""

    def text(reads: int, *, length: int = 40, seed: int = 1, offset: int = 33) -> bytes:
        random = np.random.default_rng(seed)
        bases = np.frombuffer(b"ACGT", np.uint8)[random.integers(0, 4, (reads, length))]
        qualities = random.integers(25, 41, (reads, length)).astype(np.uint8) + np.uint8(offset)
        return b"".join(
            b"@read%d\n%s\n+\n%s\n" % (number, sequence.tobytes(), quality.tobytes())
            for number, (sequence, quality) in enumerate(zip(bases, qualities, strict=True), 1)
        )

    return text


@pytest.fixture
def land(store: ObjectStore, batch: Batch) -> Callable[..., LandingManifest]:
    """Land samples as they are given: name -> bodies of its one or two files; ``.gz`` where they are gzip.

    ``records`` is what the manifest says of every file.
    """

    def put(
        samples: Mapping[str, Sequence[bytes]],
        *,
        records: int | None = None,
        encodings: Mapping[str, str] | None = None,
    ) -> LandingManifest:
        landed = []
        for name, bodies in samples.items():
            files = []
            for mate, body in enumerate(bodies, 1):
                suffix = ".gz" if body.startswith(b"\x1f\x8b") else ""
                file = LandedFile(
                    f"{name}_{mate}.fq{suffix}", len(body), hashlib.sha256(body).hexdigest(), records
                )
                store.put_bytes(batch.landing / file.key, body)
                files.append(file)
            layout = "paired" if len(files) == 2 else "single"
            encoding = (encodings or {}).get(name, "phred+33")
            landed.append(LandedSample(name, layout, encoding, tuple(files)))
        manifest = LandingManifest(batch.batch_id, tuple(landed))
        store.put_json(batch.landing / "manifest.json", manifest.to_json())
        return manifest

    return put


@pytest.fixture
def read_parts(
    store: ObjectStore, batch: Batch, request_of: Callable[..., BatchRequest]
) -> Callable[..., list[Part]]:
    """Every part of every sample of a landed batch, as the request (or a usual one) asks for them."""

    def parts(landing: LandingManifest, request: BatchRequest | None = None) -> list[Part]:
        found = [
            part
            for sample in landing.samples
            for part in parts_of(store, batch, request or request_of(), sample, skip=set())
        ]
        assert all(isinstance(part, Part) for part in found)
        return [part for part in found if isinstance(part, Part)]

    return parts


@pytest.fixture
def zipped() -> Callable[[bytes], bytes]:
    return lambda text: gzip.compress(text, compresslevel=1, mtime=0)
