"""Reads are cut where the cutadapt command cuts them."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import InvalidInput
from tasks.reads.block import ReadBlock
from tasks.reads.quality import QualityFilter
from tasks.reads.sources import read_blocks

TRUSEQ = "AGATCGGAAGAGCACACGTCTGAACTCCAGTCA"
ADAPTERS = {
    "TruSeq": (TRUSEQ, "AGATCGGAAGAGCGTCGTGTAGGGAAAGAGTGT"),
    "short": ("AGATCGGAAGAGC", "CTGTCTCTTATACACATCT"),
    "shorter than the overlap": ("GA", "ACGT"),
    "repetitive": ("AAAAAAAAAAAA", "GTGTGTGTGTGTGTGTGTGT"),
    "ambiguous": ("NNAGATCRGAANAGC", "agaucggaagBSCWKVTGTG"),
    "longer than a machine word": (TRUSEQ * 2 + "GATTACA", TRUSEQ + TRUSEQ[::-1]),
}


def edited(sequence: str, edits: int, random: np.random.Generator) -> str:
    """``sequence`` after so many mismatches, insertions and deletions."""
    for _ in range(edits):
        place, base = int(random.integers(len(sequence) + 1)), str(random.choice(list("ACGTN")))
        sequence = sequence[:place] + random.choice([base, ""]) + sequence[place + random.integers(2) :]
    return sequence


def fastq_with(adapter: str, *, reads: int, seed: int) -> bytes:
    """Reads of 1 to 100 bases, most with a more or less damaged adapter somewhere, or a piece of one."""
    random = np.random.default_rng(seed)
    code = str.maketrans("RYBSWKVUN", "ACTCAGCTA")
    adapter = adapter.upper().translate(code)
    records = []
    for number in range(reads):
        length = int(random.integers(1, 101))
        before = "".join(
            random.choice(list("ACGT"), int(random.integers(0, 90)) * int(random.integers(0, 2)))
        )
        holds = edited(adapter, int(random.integers(0, 5)), random)[int(random.integers(0, 3)) // 2 :]
        behind = "".join(random.choice(list("ACGT"), 100)) if random.integers(2) else adapter * 100
        bases = list((before + holds * int(random.integers(0, 5) > 0) + behind)[:length])
        for place in np.flatnonzero(random.random(length) < 0.01).tolist():
            bases[place] = "N"
        decline = np.linspace(40, random.integers(0, 45), length) + random.normal(0, 4, length)
        quality = "".join(chr(33 + value) for value in np.clip(decline, 2, 41).astype(int).tolist())
        records.append(f"@r{number}\n{''.join(bases)}\n+\n{quality}\n")
    return "".join(records).encode()


def reads_of(block: ReadBlock) -> dict[bytes, tuple[bytes, list[int]]]:
    cuts = [
        slice(*pair) for pair in zip(block.offsets[:-1].tolist(), block.offsets[1:].tolist(), strict=True)
    ]
    return {
        name: (block.sequence[cut].tobytes(), block.quality[cut].tolist())
        for name, cut in zip(block.names, cuts, strict=True)
    }


def block_of(text: bytes) -> ReadBlock:
    (block,) = read_blocks(io.BytesIO(text), source="x", quality_offset=33)
    return block


@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_read_is_what_cutadapt_makes_of_it(tmp_path: Path, kind: str) -> None:
    texts = [fastq_with(adapter, reads=800, seed=mate) for mate, adapter in enumerate(ADAPTERS[kind])]
    for mate, text in enumerate(texts, start=1):
        (tmp_path / f"{mate}.fastq").write_bytes(text)
    first, second = ADAPTERS[kind]
    outputs = ["-o", "cut_1.fastq", "-p", "cut_2.fastq", "1.fastq", "2.fastq"]
    command = [sys.executable, "-m", "cutadapt", "-q", "15", "-a", first, "-A", second, *outputs]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    keep_all = QualityFilter(15, 0, 0, 1, adapters=ADAPTERS[kind])
    for mate, text in enumerate(texts, start=1):
        block = block_of(text)
        lines = (tmp_path / f"cut_{mate}.fastq").read_bytes().splitlines()
        expected = {
            name[1:]: (bases, [value - 33 for value in quality])
            for name, bases, quality in zip(lines[::4], lines[1::4], lines[3::4], strict=True)
            if bases  # a read of no bases is no read here
        }
        found = keep_all.apply(block, mate=mate)
        assert reads_of(found.kept) == expected
        assert found.rejected["too_short"] == len(block) - len(expected)
        cut = sum(read != expected.get(name) for name, read in reads_of(block).items())
        assert 200 < found.with_adapter <= cut < len(block)


@pytest.mark.parametrize("adapter", ["ACGT$", "^ACGT", "name=ACGT", "ACGTX", "NNN", "ÄCGT", "A C"])
def test_what_is_no_plain_sequence_is_refused(adapter: str) -> None:
    with pytest.raises(InvalidInput, match="adapter"):
        QualityFilter(20, 40, 20, 0.1, adapters=("", adapter))
