"""minimap2 (Li 2018): Debian's own program, taken out of its package, so that nothing is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tasks.reads.simulate import Genome, read_genomes
from tests.benchmarks.accuracy.genomes import FOLDER, unpacked

PROGRAM = FOLDER / "minimap2"
SHORTEST_PART = 3_000
"""Bases: as long as the longest fragment of a library."""


def fetch() -> None:
    """Put the program into :data:`PROGRAM` where it is not there."""
    if PROGRAM.exists():
        return
    with unpacked("minimap2") as content:
        shutil.copy(content / "usr" / "bin" / "minimap2", part := PROGRAM.with_suffix(".part"))
    part.replace(PROGRAM)


def run(*arguments: str | Path) -> list[list[str]]:
    """The lines of its output, in fields; on one thread, as everything else here."""
    done = subprocess.run(
        [PROGRAM, "-t", "1", *arguments], check=True, capture_output=True, text=True, timeout=600
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


def alike(genomes: Sequence[Genome], target: Path) -> list[Genome]:
    """The parts of the sequences in ``target`` that align to one of the genomes, as long as a fragment at least."""
    with tempfile.TemporaryDirectory() as scratch:
        fasta = Path(scratch) / "genomes.fa"
        fasta.write_bytes(b"".join(b">%d\n%s\n" % (n, g.sequence.tobytes()) for n, g in enumerate(genomes)))
        places = [line[5:9] for line in run("-x", "asm20", target, fasta)]
    whole = read_genomes(target)
    found = [
        whole[int(name)].sequence[int(begin) : int(end)]
        for name, _, begin, end in places
        if int(end) - int(begin) >= SHORTEST_PART
    ]
    return [
        Genome(f"{genomes[0].name.partition('.')[0]}.{number}", part) for number, part in enumerate(found)
    ]
