"""The manifest that makes a landed batch exist: ``landing/<batch_id>/manifest.json``, uploaded last."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from tasks.batches import Batch
from tasks.errors import InvalidBatch
from tasks.object_store import ObjectStore
from tasks.reads.layouts import FILES_OF_LAYOUT, QUALITY_OFFSETS

MANIFEST_NAME = "manifest.json"
FORMAT = "strandloop-landing"
FORMAT_VERSION = 1
SAMPLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SAMPLE_NAME_RULE = "1 to 64 letters, digits, dots, dashes and underscores, and start with a letter or digit"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"(?!\.\.?(/|$))[^/\\\x00-\x1f]+(/(?!\.\.?(/|$))[^/\\\x00-\x1f]+)*")


@dataclass(frozen=True)
class LandedFile:
    """One object of a batch.

    :param key: relative to the batch's landing prefix.
    :param bytes: its size as it lies there, compressed or not.
    :param records: records in it, those of both mates where it is interleaved, or None where whoever landed it
        did not count.
    """

    key: str
    bytes: int
    sha256: str
    records: int | None


@dataclass(frozen=True)
class LandedSample:
    """The reads of one library.

    :param layout: ``single``, one file; ``paired``, two files, R1 and R2, record by record; or ``interleaved``, one
        file in which R1 and R2 follow each other.
    :param quality_encoding: of FASTQ: ``phred+33`` or ``phred+64``.
    """

    name: str
    layout: str
    quality_encoding: str
    files: tuple[LandedFile, ...]

    @property
    def quality_offset(self) -> int:
        """What is to be taken off a quality character to get Phred."""
        return QUALITY_OFFSETS[self.quality_encoding]


@dataclass(frozen=True)
class LandingManifest:
    """All samples of one batch."""

    batch_id: str
    samples: tuple[LandedSample, ...]

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON values."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "batch_id": self.batch_id,
            "samples": [
                {**asdict(sample), "files": [asdict(file) for file in sample.files]}
                for sample in self.samples
            ],
        }

    @classmethod
    def from_json(cls, value: Any, *, batch_id: str) -> LandingManifest:
        """The manifest in JSON values; raises InvalidBatch with every problem that can be seen in them."""
        samples, problems = examine(value, batch_id=batch_id)
        if problems:
            raise InvalidBatch(batch_id, problems)
        return cls(batch_id, tuple(samples))


def read_manifest(store: ObjectStore, batch: Batch) -> tuple[LandingManifest, str]:
    """The batch's manifest and the SHA-256 of its bytes; raises InvalidBatch where it is missing or wrong."""
    value, sha256 = fetch_manifest(store, batch)
    return LandingManifest.from_json(value, batch_id=batch.batch_id), sha256


def fetch_manifest(store: ObjectStore, batch: Batch) -> tuple[Any, str]:
    """The manifest's JSON values, unchecked, and the SHA-256 of its bytes."""
    uri = batch.landing / MANIFEST_NAME
    try:
        body = store.get_bytes(uri)
    except FileNotFoundError:
        how = f"python -m tasks.landing put --data-uri {batch.data_uri} --batch-id {batch.batch_id} FASTQ..."
        raise InvalidBatch(batch.batch_id, [f"there is no {uri}; land the batch: {how}"]) from None
    try:
        return json.loads(body), hashlib.sha256(body).hexdigest()
    except ValueError as error:
        raise InvalidBatch(batch.batch_id, [f"{uri} is not JSON: {error}"]) from error


def examine(value: Any, *, batch_id: str) -> tuple[list[LandedSample], list[str]]:
    """The samples as far as they can be understood, and one line for each thing that is wrong.

    Files that are wrong in themselves are left out of their sample; without problems everything is there.
    """
    problems: list[str] = []
    if not isinstance(value, dict):
        return [], ["the manifest is not a JSON object"]
    for name, expected in (
        ("format", FORMAT),
        ("format_version", FORMAT_VERSION),
        ("batch_id", batch_id),
    ):
        if value.get(name) != expected:
            problems.append(f"{name} is {value.get(name)!r}, but must be {expected!r}")
    entries = value.get("samples")
    if not isinstance(entries, list) or not entries:
        return [], [*problems, "samples must be a list of at least one sample: a batch without reads is none"]
    samples = [
        _sample(entry, where=f"sample {number}", problems=problems) for number, entry in enumerate(entries, 1)
    ]
    for noun, names in (
        ("sample name", [sample.name for sample in samples if sample.name]),
        ("key", [file.key for sample in samples for file in sample.files]),
    ):
        problems += [f"{noun} {name!r} is there {n} times" for name, n in Counter(names).items() if n > 1]
    return samples, problems


def _sample(entry: Any, *, where: str, problems: list[str]) -> LandedSample:
    fields = entry if isinstance(entry, dict) else {}
    name, layout, encoding = (fields.get(key) for key in ("name", "layout", "quality_encoding"))
    if isinstance(name, str) and SAMPLE_NAME.fullmatch(name):
        where = f"sample {name!r}"
    else:
        problems.append(f"{where}: name is {name!r}, but must be {SAMPLE_NAME_RULE}")
        name = ""
    for key, found, known in (
        ("layout", layout, FILES_OF_LAYOUT),
        ("quality_encoding", encoding, QUALITY_OFFSETS),
    ):
        if found not in list(known):
            problems.append(f"{where}: {key} is {found!r}, but must be one of: {', '.join(known)}")
    entries = fields.get("files")
    if not isinstance(entries, list):
        problems.append(f"{where}: files must be a list of objects, but is {entries!r}")
        entries = []
    elif layout in list(FILES_OF_LAYOUT) and len(entries) != FILES_OF_LAYOUT[layout]:
        problems.append(
            f"{where}: a {layout} sample has {FILES_OF_LAYOUT[layout]} file(s), but {len(entries)} are named"
        )
    files = [
        _file(file, where=f"{where}, file {number}", problems=problems)
        for number, file in enumerate(entries, 1)
    ]
    sample = LandedSample(name, str(layout), str(encoding), tuple(file for file in files if file))
    counts = [file.records for file in sample.files if file.records is not None]
    if layout == "paired" and len(set(counts)) > 1:
        found = " and ".join(f"{file.key} {file.records:,}" for file in sample.files)
        problems.append(f"{where}: the files of a pair have as many records each, but {found}")
    if layout == "interleaved" and any(count % 2 for count in counts):
        problems.append(f"{where}: an interleaved file has pairs of records, but {counts[0]:,} are named")
    return sample


def _file(entry: Any, *, where: str, problems: list[str]) -> LandedFile | None:
    fields = entry if isinstance(entry, dict) else {}
    key, size, sha256, records = (fields.get(name) for name in ("key", "bytes", "sha256", "records"))
    checks = {
        "key": (
            key,
            isinstance(key, str) and _KEY.fullmatch(key),
            "a path below the batch, without .. in it",
        ),
        "bytes": (size, _is_count(size), "the object's size"),
        "sha256": (sha256, isinstance(sha256, str) and _SHA256.fullmatch(sha256), "64 lower-case hex digits"),
        "records": (records, records is None or _is_count(records), "a number of records, or null"),
    }
    wrong = [
        f"{where}: {name} is {found!r}, but must be {rule}"
        for name, (found, fine, rule) in checks.items()
        if not fine
    ]
    problems += wrong
    return None if wrong else LandedFile(fields["key"], fields["bytes"], fields["sha256"], records)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
