"""Part 1: FASTQ, gzip, to trimmed reads in Arrow; one process, one thread, ours and two rivals.

Every way gives the same table: name, sequence and quality text of the reads that have 40 bases or more after
quality trimming (cutoff 20) and, where asked for, adapter trimming. That the tables are equal is checked.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.benchmarks.phase1.inputs import ADAPTER, Input
from tests.benchmarks.processes import measured

TRIM_QUALITY = 20
MIN_LENGTH = 40
BLOCK_READS = 20_000
SCHEMA = pa.schema({"name": pa.string(), "sequence": pa.large_string(), "quality": pa.large_string()})
REPEATS = {"ours": 3, "dnaio + cutadapt": 3, "Bio.SeqIO": 1}


def compare(inputs: dict[str, Input]) -> list[dict[str, Any]]:
    """One row for each way, input, and with or without the adapter; raises where two ways do not agree."""
    rows = []
    for source in inputs.values():
        for adapter in ("", ADAPTER):
            digests = {}
            for way in WAYS:
                if way == "Bio.SeqIO" and not adapter:
                    continue  # parsing is what takes its time: once is enough
                found = measured("phase1.parsing", way, adapter, *map(str, source.paths))
                digests[way] = found.pop("digest")
                seconds = min(found["seconds"])
                rows.append(
                    {
                        "input": source.name,
                        "adapter": bool(adapter),
                        "way": way,
                        "reads_per_second": round(source.reads / seconds),
                        "text_mb_per_second": round(source.text_bytes / seconds / 1e6, 1),
                        **found,
                    }
                )
            if len(set(digests.values())) > 1:
                raise AssertionError(f"{source.name}, adapter {adapter!r}: the tables differ: {digests}")
    return rows


def ours(paths: list[Path], adapter: str) -> Iterator[pa.Table]:
    """The functions of :mod:`tasks.reads`."""
    from tasks.reads.block import ReadBlock
    from tasks.reads.quality import QualityFilter
    from tasks.reads.sources import sample_blocks

    quality = QualityFilter(
        trim_quality=TRIM_QUALITY,
        min_length=MIN_LENGTH,
        min_mean_quality=0,
        max_n_fraction=1,
        **({"adapters": (adapter, "")} if adapter else {}),
    )

    def text(block: ReadBlock, codes: np.ndarray) -> pa.Array:
        offsets = pa.py_buffer(np.ascontiguousarray(block.offsets))
        return pa.LargeStringArray.from_buffers(len(block), offsets, pa.py_buffer(codes))

    for path in paths:
        with path.open("rb") as stream:
            for (block,) in sample_blocks([(path.name, stream)], layout="single", quality_offset=33):
                kept = quality.apply(block).kept
                names = pa.array(kept.names, pa.binary()).cast(pa.string())
                yield pa.table(
                    [names, text(kept, kept.sequence), text(kept, kept.quality + np.uint8(33))], schema=SCHEMA
                )


def dnaio_cutadapt(paths: list[Path], adapter: str) -> Iterator[pa.Table]:
    """dnaio and cutadapt's own modifiers, read by read."""
    import dnaio

    def records() -> Iterator[Any]:
        for path in paths:
            with dnaio.open(path, open_threads=0) as reader:
                yield from reader

    yield from _trimmed(records(), adapter)


def biopython(paths: list[Path], adapter: str) -> Iterator[pa.Table]:
    """Bio.SeqIO; trimmed by cutadapt as well, since Biopython has nothing of the kind."""
    import dnaio
    from Bio import SeqIO

    def records() -> Iterator[Any]:
        for path in paths:
            with gzip.open(path, "rt") as text:
                for record in SeqIO.parse(text, "fastq"):
                    qualities = bytes(q + 33 for q in record.letter_annotations["phred_quality"]).decode()
                    yield dnaio.SequenceRecord(record.description, str(record.seq), qualities)

    yield from _trimmed(records(), adapter)


WAYS: dict[str, Callable[[list[Path], str], Iterator[pa.Table]]] = {
    "ours": ours,
    "dnaio + cutadapt": dnaio_cutadapt,
    "Bio.SeqIO": biopython,
}


def _trimmed(records: Iterator[Any], adapter: str) -> Iterator[pa.Table]:
    from cutadapt.adapters import BackAdapter
    from cutadapt.info import ModificationInfo
    from cutadapt.modifiers import AdapterCutter, QualityTrimmer

    modifiers: list[Any] = [QualityTrimmer(0, TRIM_QUALITY)]
    if adapter:
        modifiers.append(AdapterCutter([BackAdapter(adapter)]))
    names: list[str] = []
    sequences: list[str] = []
    qualities: list[str] = []
    for record in records:
        info = ModificationInfo(record)
        for modifier in modifiers:
            record = modifier(record, info)
        if len(record) < MIN_LENGTH:
            continue
        names.append(record.name)
        sequences.append(record.sequence)
        qualities.append(record.qualities)
        if len(names) == BLOCK_READS:
            yield pa.table([names, sequences, qualities], schema=SCHEMA)
            names, sequences, qualities = [], [], []
    yield pa.table([names, sequences, qualities], schema=SCHEMA)


def digest_of(tables: list[pa.Table]) -> str:
    """Of every value in order, however the rows are spread over tables."""
    digest = hashlib.sha256()
    for table in tables:
        for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
            digest.update("\n".join(row).encode())
    return digest.hexdigest()


def main() -> None:
    """One way, so many times; a first pass over a part of the first file compiles what is compiled."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("adapter")
    parser.add_argument("paths", nargs="+", type=Path)
    options = parser.parse_args()
    way = WAYS[options.way]
    started = time.perf_counter()
    next(way(options.paths[:1], options.adapter))
    first_table = time.perf_counter() - started
    seconds = []
    for _ in range(REPEATS[options.way]):
        started = time.perf_counter()
        tables = list(way(options.paths, options.adapter))
        seconds.append(round(time.perf_counter() - started, 3))
    result = {
        "kept": sum(table.num_rows for table in tables),
        "seconds": seconds,
        "seconds_to_first_table": round(first_table, 3),
        "digest": digest_of(tables),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
