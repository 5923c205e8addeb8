"""Landing a batch: look through every file first, then upload, and the manifest last."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from tasks.batches import Batch
from tasks.errors import InvalidBatch, InvalidReads
from tasks.landing.libraries import Library, group_files
from tasks.landing.manifest import (
    MANIFEST_NAME,
    LandedFile,
    LandedSample,
    LandingManifest,
    read_manifest,
)
from tasks.object_store import ObjectStore

if TYPE_CHECKING:
    from tasks.reads.inspection import FileInspection

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Landing:
    """What :func:`put` did: ``status`` is ``written`` or ``unchanged``."""

    status: str
    manifest: LandingManifest


def put(
    paths: Sequence[Path],
    batch: Batch,
    *,
    sample: str | None = None,
    interleaved: bool = False,
    tell: Callable[[str], None] = print,
) -> Landing:
    """Land files of reads as one batch; pairs are found by their names.

    They may be FASTQ, FASTA or unaligned BAM, plain, gzip or zstd.

    Every file is read once from end to end before anything is uploaded. Single records that cannot be read are
    only told of: they go to quarantine when the batch is embedded.

    :param sample: a name for the sample, where the files are one file or one pair.
    :param interleaved: each file holds both mates of its pairs, one after the other.
    :param tell: takes the lines of the summary.
    :raises InvalidBatch: a file cannot be landed, or the batch id holds other reads; nothing was uploaded.
    """
    store = ObjectStore()
    libraries, problems = group_files(paths, sample=sample, interleaved=interleaved)
    if not paths:
        problems.append("no files are given")
    if problems:
        raise InvalidBatch(batch.batch_id, problems)
    tell(f"{len(paths)} file(s) for {batch.landing}")
    manifest = _inspected(libraries, batch, tell)
    total = f"{sum(len(s.files) for s in manifest.samples)} file(s) of {len(manifest.samples)} sample(s)"
    if store.head(batch.landing / MANIFEST_NAME) is not None:
        _compare(manifest, store, batch)
        tell(f"batch {batch.batch_id} holds these {total} already: nothing was changed")
        return Landing("unchanged", manifest)
    for landed, library in zip(manifest.samples, libraries, strict=True):
        for file, path in zip(landed.files, library.paths, strict=True):
            store.put_file(batch.landing / file.key, path)
    if not store.put_json(batch.landing / MANIFEST_NAME, manifest.to_json(), if_absent=True):
        _compare(manifest, store, batch)  # somebody else landed this batch id in the meantime
    records = sum(file.records or 0 for landed in manifest.samples for file in landed.files)
    tell(f"landed {total}, {records:,} records, as batch {batch.batch_id}")
    return Landing("written", manifest)


def _inspected(libraries: list[Library], batch: Batch, tell: Callable[[str], None]) -> LandingManifest:
    """The manifest of what the files hold; each sample is told of as soon as it has been read."""
    widths = (
        max(len(library.sample) for library in libraries),
        max(len(path.name) for library in libraries for path in library.paths),
    )
    tell(_row(widths, "sample", "layout", "file", "records", "encoding", "bytes"))
    samples, problems = [], []
    for library in libraries:
        try:
            landed, inspections = _inspect(library)
        except InvalidReads as error:
            problems.append(str(error))
            continue
        samples.append(landed)
        for number, (file, inspection) in enumerate(zip(landed.files, inspections, strict=True)):
            name, layout, encoding = (
                ("", "", "") if number else (landed.name, landed.layout, landed.quality_encoding)
            )
            file_name = file.key.rpartition("/")[2]
            tell(_row(widths, name, layout, file_name, f"{file.records:,}", encoding, f"{file.bytes:,}"))
            if not inspection.records:
                tell(f"  warning: {inspection.source} is empty")
            if inspection.quarantined:
                tell(_warning(inspection))
    if problems:
        tell("nothing was uploaded")
        raise InvalidBatch(batch.batch_id, problems)
    return LandingManifest(batch.batch_id, tuple(samples))


def _inspect(library: Library) -> tuple[LandedSample, list[FileInspection]]:
    # here: whoever only validates a batch, as an Airflow worker does, needs no readers of reads
    from tasks.reads.inspection import inspect_sample

    with ExitStack() as files:
        streams = [_Hashed(files.enter_context(path.open("rb"))) for path in library.paths]
        named = [
            (str(path), cast(BinaryIO, stream)) for path, stream in zip(library.paths, streams, strict=True)
        ]
        found = inspect_sample(named, layout=library.layout)
        for stream in streams:
            stream.read_to_end()
    landed = [
        LandedFile(f"{library.sample}/{path.name}", stream.bytes, stream.sha256.hexdigest(), file.records)
        for path, stream, file in zip(library.paths, streams, found.files, strict=True)
    ]
    return LandedSample(library.sample, library.layout, found.quality_encoding, tuple(landed)), found.files


def _compare(manifest: LandingManifest, store: ObjectStore, batch: Batch) -> None:
    """Raise unless the manifest that stands there already names the same reads."""
    there, _ = read_manifest(store, batch)
    ours, theirs = ({s.name: _content(s) for s in m.samples} for m in (manifest, there))
    if ours == theirs:
        return
    differences = [f"sample {name!r} was not in it" for name in sorted(ours.keys() - theirs.keys())]
    differences += [
        f"sample {name!r} was, and is not given now" for name in sorted(theirs.keys() - ours.keys())
    ]
    differences += [
        f"sample {name!r} had other reads, layout or quality encoding"
        for name in sorted(ours.keys() & theirs.keys())
        if ours[name] != theirs[name]
    ]
    raise InvalidBatch(
        batch.batch_id,
        [
            f"it was landed before, and not with these files: {'; '.join(differences)}. A landed batch is never "
            "changed: land these files under another batch id"
        ],
    )


def _content(sample: LandedSample) -> tuple[Any, ...]:
    return sample.layout, sample.quality_encoding, *((file.bytes, file.sha256) for file in sample.files)


def _row(widths: tuple[int, int], *cells: str) -> str:
    sample, layout, file, records, encoding, size = cells
    sample_width, file_width = (max(width, 6) for width in widths)
    return (
        f"  {sample:<{sample_width}}  {layout:<11}  {file:<{file_width}}  {records:>12}  {encoding:<8}  {size:>15}"
    ).rstrip()


def _warning(inspection: FileInspection) -> str:
    first = inspection.first_quarantined[0]
    return (
        f"  warning: {inspection.source}: {inspection.quarantined:,} of {inspection.records:,} records cannot be "
        f"read and will go to quarantine; the first is record {first.record_number:,} at byte "
        f"{first.byte_offset:,} of the text: {first.reason}"
    )


class _Hashed(io.RawIOBase):
    """A file that counts and checksums what is read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._file.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self.sha256.update(chunk)
        self.bytes += len(chunk)
        return len(chunk)

    def read_to_end(self) -> None:
        """Take what a parser left unread, so that size and checksum are the whole file's."""
        while self.read(_CHUNK_BYTES):
            pass
