"""The reads that everything here is measured on, made once from a seed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.reads.simulate import Genome, Library, random_genomes, simulate

SEED = 4
FILES = 8
SHORT_BASES = 150
LONG_BASES = (1_000, 10_000)
SHORT_PER_LONG = 15
"""300,000 short reads go with 20,000 long ones."""
ADAPTER = "AGATCGGAAGAGCACACGTCTGAACTCCAGTCA"
ADAPTER_FRACTION = 0.2
"""Of the short reads: their fragment is shorter than the read, and the adapter follows it."""
_LONG_QUALITIES = np.clip(np.rint(np.random.default_rng(SEED).normal(28, 5, 256)), 3, 41).astype(np.uint8)
_FORMAT = 1  # of the files below; another number makes them anew


@dataclass(frozen=True)
class Input:
    """FASTQ files, gzip.

    :param text_bytes: of the FASTQ text, uncompressed.
    :param gzip_bytes: of the files.
    """

    name: str
    paths: tuple[Path, ...]
    reads: int
    bases: int
    text_bytes: int
    gzip_bytes: int

    def to_json(self) -> dict[str, Any]:
        """For the record of what was measured."""
        return {**asdict(self), "paths": [path.name for path in self.paths], "seed": SEED}


def make_inputs(folder: Path, reads: int) -> dict[str, Input]:
    """The inputs ``short`` (``reads`` of 150 bases) and ``long`` (a fifteenth as many, 1 kb to 10 kb).

    They are kept below ``folder`` and made only where they are not there yet.
    """
    folder = folder / f"{reads}-{SEED}-{_FORMAT}"
    done = folder / "inputs.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        genomes = random_genomes(5, 200_000, seed=SEED)
        made = {"short": _write(folder, "short", _short_texts(genomes, reads))}
        made["long"] = _write(folder, "long", _long_texts(genomes, max(FILES, reads // SHORT_PER_LONG)))
        done.write_text(json.dumps(made))
    stored = json.loads(done.read_text())
    return {
        name: Input(name=name, **{**fields, "paths": tuple(folder / file for file in fields["paths"])})
        for name, fields in stored.items()
    }


def head_of(source: Input, folder: Path, reads: int) -> Input:
    """The first ``reads`` of every file of ``source``, as an input of its own."""
    lines = 4 * reads
    texts = (_first_lines(path, lines) for path in source.paths)
    folder.mkdir(parents=True, exist_ok=True)
    fields = _write(folder, source.name, texts)
    return Input(name="head", **{**fields, "paths": tuple(folder / file for file in fields["paths"])})


def repeated(source: Input, folder: Path, times: int, *, name: str) -> Input:
    """The files of ``source`` so many times, under other names."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(1, times + 1):
        for path in source.paths:
            paths.append(folder / f"copy{number}.{path.name}")
            paths[-1].symlink_to(path)
    sums = {field: times * getattr(source, field) for field in ("reads", "bases", "text_bytes", "gzip_bytes")}
    return Input(name=name, paths=tuple(paths), **sums)


def _first_lines(path: Path, lines: int) -> bytes:
    with gzip.open(path) as text:
        return b"".join(line for line, _ in zip(text, range(lines), strict=False))


def _write(folder: Path, name: str, texts: Iterator[bytes]) -> dict[str, Any]:
    files: list[str] = []
    reads = bases = text_bytes = gzip_bytes = 0
    for number, text in enumerate(texts, 1):
        files.append(f"{name}{number}.fq.gz")
        body = gzip.compress(text, compresslevel=4, mtime=0)
        (folder / files[-1]).write_bytes(body)
        lines = text.split(b"\n")
        reads += len(lines) // 4
        bases += sum(map(len, lines[1::4]))
        text_bytes += len(text)
        gzip_bytes += len(body)
    return {
        "paths": files,
        "reads": reads,
        "bases": bases,
        "text_bytes": text_bytes,
        "gzip_bytes": gzip_bytes,
    }


def _short_texts(genomes: list[Genome], reads: int) -> Iterator[bytes]:
    adapter = np.frombuffer(ADAPTER.encode(), dtype=np.uint8)
    for file in range(FILES):
        count = reads // FILES + (file < reads % FILES)
        [made] = simulate(genomes, Library(templates=count, read_length=SHORT_BASES, seed=SEED + file))
        random = np.random.default_rng((SEED, file))
        rows = np.flatnonzero(random.random(count) < ADAPTER_FRACTION)
        starts = random.integers(SHORT_BASES // 4, SHORT_BASES, size=len(rows))
        columns = np.arange(SHORT_BASES) - starts[:, None]
        inside = (columns >= 0) & (columns < len(adapter)) & (random.random(columns.shape) > 0.005)
        made.sequences[rows] = np.where(
            inside, adapter[np.clip(columns, 0, len(adapter) - 1)], made.sequences[rows]
        )
        yield made.to_fastq()


def _long_texts(genomes: list[Genome], reads: int) -> Iterator[bytes]:
    genome = np.concatenate([genome.sequence for genome in genomes])
    for file in range(FILES):
        random = np.random.default_rng((SEED, FILES + file))
        count = reads // FILES + (file < reads % FILES)
        lengths = random.integers(*LONG_BASES, endpoint=True, size=count)
        starts = random.integers(0, len(genome) - lengths)
        records = []
        for number, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True), 1):
            noise = random.integers(0, 256, size=length, dtype=np.uint8)
            quality = _LONG_QUALITIES[noise] + 33
            name = b"long%d.%d:%d" % (file, number, start)
            sequence = genome[start : start + length].tobytes()
            records.append(b"@%s\n%s\n+\n%s\n" % (name, sequence, quality.tobytes()))
        yield b"".join(records)
