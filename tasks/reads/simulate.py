"""Labelled reads: sequencing simulated from known genomes, with the truth in each read's name.

``python -m tasks.reads.simulate --out DIR`` writes FASTQ files that ``python -m tasks.landing put`` can land.
Errors are substitutions, seven times as many at the 3' end as at the 5' end, and the qualities say so.
"""

from __future__ import annotations

import argparse
import gzip
import re
import sys
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.errors import InvalidInput

_BASES = np.frombuffer(b"ACGT", dtype=np.uint8)
_COMPLEMENT = np.frombuffer(bytes.maketrans(b"ACGT", b"TGCA"), dtype=np.uint8)
_CONTEXT = 3  # a random genome's next base depends on so many: each genome has a k-mer profile of its own
_CONTRAST = 2.0  # Dirichlet parameter; lower makes random genomes differ more
_QUALITY_NOISE = 2.0
_N_QUALITY = 2
_BEST_QUALITY = 41


@dataclass(frozen=True)
class Genome:
    """A named sequence, uint8 ``ACGTN``."""

    name: str
    sequence: np.ndarray


@dataclass(frozen=True)
class Library:
    """How genomes are sequenced.

    :param templates: single reads, or pairs.
    :param read_length: bases of every read.
    :param paired: two reads of each template, towards each other.
    :param insert_length: mean length of a pair's template; a tenth of it is its standard deviation.
    :param error_rate: substitutions per base, on average over the read.
    :param n_rate: bases that are not called, per base.
    :param seed: the same seed gives the same reads.
    """

    templates: int
    read_length: int = 150
    paired: bool = False
    insert_length: int = 400
    error_rate: float = 0.005
    n_rate: float = 0.0005
    seed: int = 1


@dataclass(frozen=True)
class Truth:
    """Where a read comes from.

    :param genome: name of the genome.
    :param position: 0-based, the read's leftmost base on the forward strand, before any trimming.
    :param strand: ``+``, or ``-`` where the read is the reverse complement of what stands there.
    """

    genome: str
    position: int
    strand: str

    @classmethod
    def from_name(cls, name: str) -> Truth:
        """Read ``sim<number>:<genome>:<start>:<end>:<strand>:<read length>``, with ``/1`` or ``/2`` of pairs.

        Start and end are those of the template, so that mates have one name. ValueError for other names.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise ValueError(f"{name!r} is not the name of a simulated read")
        is_forward = (found["strand"] == "+") == (found["mate"] != "2")
        start = int(found["start"]) if is_forward else int(found["end"]) - int(found["length"])
        return cls(found["genome"], start, "+" if is_forward else "-")


_NAME = re.compile(
    r"sim\d+:(?P<genome>[^:]+):(?P<start>\d+):(?P<end>\d+):(?P<strand>[+-]):(?P<length>\d+)(/(?P<mate>[12]))?"
)


@dataclass(frozen=True)
class SimulatedReads:
    """One file's worth of reads; ``sequences`` and ``qualities`` (Phred) are uint8 (reads, length)."""

    names: list[str]
    sequences: np.ndarray
    qualities: np.ndarray

    def to_fastq(self) -> bytes:
        """The reads as FASTQ text, phred+33."""
        texts = (
            b"@%s\n%s\n+\n%s\n" % (name.encode(), sequence.tobytes(), quality.tobytes())
            for name, sequence, quality in zip(self.names, self.sequences, self.qualities + 33, strict=True)
        )
        return b"".join(texts)


def simulate(genomes: Sequence[Genome], library: Library) -> list[SimulatedReads]:
    """Sequence the genomes, each in proportion to its length: one set of reads, or two of a paired library.

    :raises InvalidInput: a genome is shorter than what is to be read from it.
    """
    random = np.random.default_rng(library.seed)
    lengths = np.array([len(genome.sequence) for genome in genomes])
    longest = (
        library.read_length
        if not library.paired
        else max(library.read_length, library.insert_length * 3 // 2)
    )
    for genome in genomes:
        if len(genome.sequence) < longest:
            raise InvalidInput(
                f"genome {genome.name!r} has {len(genome.sequence):,} bases, too few for templates of up to "
                f"{longest:,}"
            )
    of = random.choice(len(genomes), size=library.templates, p=lengths / lengths.sum())
    sizes = np.full(library.templates, library.read_length)
    if library.paired:
        drawn = random.normal(library.insert_length, library.insert_length / 10, size=library.templates)
        sizes = np.clip(drawn.astype(np.int64), library.read_length, longest)
    starts = (random.random(library.templates) * (lengths[of] - sizes + 1)).astype(np.int64)
    forward = random.random(library.templates) < 0.5

    names = [
        f"sim{number}:{genomes[genome].name}:{start}:{start + size}:{'+' if plus else '-'}:{library.read_length}"
        for number, (genome, start, size, plus) in enumerate(
            zip(of.tolist(), starts.tolist(), sizes.tolist(), forward.tolist(), strict=True), 1
        )
    ]
    text = np.concatenate([genome.sequence for genome in genomes])
    starts = starts + (np.cumsum(lengths) - lengths)[of]
    ends = starts + sizes - library.read_length
    first = _sequenced(text, np.where(forward, starts, ends), forward, library, random)
    if not library.paired:
        return [SimulatedReads(names, *first)]
    second = _sequenced(text, np.where(forward, ends, starts), ~forward, library, random)
    return [
        SimulatedReads([f"{name}/{mate}" for name in names], *reads)
        for mate, reads in enumerate((first, second), 1)
    ]


def write_fastq(directory: Path, sample: str, files: Sequence[SimulatedReads]) -> list[Path]:
    """Write ``<sample>.fq.gz``, or ``<sample>_1.fq.gz`` and ``<sample>_2.fq.gz``; same reads, same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for mate, reads in enumerate(files, 1):
        path = directory / (f"{sample}_{mate}.fq.gz" if len(files) == 2 else f"{sample}.fq.gz")
        path.write_bytes(gzip.compress(reads.to_fastq(), compresslevel=4, mtime=0))
        paths.append(path)
    return paths


def random_genomes(count: int, length: int, *, seed: int) -> list[Genome]:
    """Genomes that differ in composition as species do: each a Markov chain over three bases of its own."""
    random = np.random.default_rng(seed)
    genomes = []
    for number in range(1, count + 1):
        chances = random.dirichlet(np.full(4, _CONTRAST), size=4**_CONTEXT)
        thresholds = np.cumsum(chances, axis=1)[:, :3].tolist()
        bases, context = bytearray(), 0
        for draw in random.random(length).tolist():
            base = bisect(thresholds[context], draw)
            bases.append(base)
            context = (4 * context + base) % 4**_CONTEXT
        genomes.append(Genome(f"genome{number}", _BASES[np.frombuffer(bases, dtype=np.uint8)]))
    return genomes


def read_genomes(path: Path) -> list[Genome]:
    """The sequences of a FASTA file, plain or gzip; named ``<file>``, or ``<file>.1``, … where it has several."""
    body = path.read_bytes()
    text = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
    _, *records = re.split(rb"^>", text, flags=re.MULTILINE)
    if not records:
        raise InvalidInput(f"{path} has no FASTA records")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", path.name.partition(".")[0])
    genomes = []
    for number, record in enumerate(records, 1):
        codes = np.frombuffer(b"".join(record.split(b"\n")[1:]).upper().replace(b"\r", b""), dtype=np.uint8)
        sequence = np.where(np.isin(codes, _BASES), codes, np.uint8(ord("N")))
        genomes.append(Genome(name if len(records) == 1 else f"{name}.{number}", sequence))
    return genomes


def _sequenced(
    text: np.ndarray, starts: np.ndarray, forward: np.ndarray, library: Library, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sequences and qualities of the windows at ``starts``, with errors."""
    columns = np.arange(library.read_length)
    sequences = text[starts[:, None] + columns]
    sequences[~forward] = _COMPLEMENT[sequences[~forward, ::-1]]
    chances = library.error_rate * (0.25 + 1.5 * columns / max(library.read_length - 1, 1))
    wrong = (random.random(sequences.shape) < chances) & (sequences != ord("N"))
    known = np.searchsorted(_BASES, sequences[wrong])
    sequences[wrong] = _BASES[(known + random.integers(1, 4, size=known.size)) % 4]
    with np.errstate(divide="ignore"):
        expected = -10 * np.log10(chances)
    noise = random.normal(0, _QUALITY_NOISE, size=sequences.shape)
    qualities = np.clip(np.rint(expected + noise), _N_QUALITY + 1, _BEST_QUALITY).astype(np.uint8)
    sequences[random.random(sequences.shape) < library.n_rate] = ord("N")
    qualities[sequences == ord("N")] = _N_QUALITY
    return sequences, qualities


def main() -> int:
    """Read the command line, write the files; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.reads.simulate", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the FASTQ files")
    parser.add_argument("--sample", default="simulated", help="name of the sample and of its files")
    parser.add_argument("--genomes", type=Path, nargs="+", metavar="FASTA", help="instead of random genomes")
    parser.add_argument("--random-genomes", type=int, default=5, help="how many (default: 5)")
    parser.add_argument(
        "--genome-length", type=int, default=100_000, help="of random genomes (default: 100000)"
    )
    parser.add_argument("--reads", type=int, default=10_000, help="single reads, or pairs (default: 10000)")
    parser.add_argument("--read-length", type=int, default=150)
    parser.add_argument("--paired", action="store_true")
    parser.add_argument("--insert-length", type=int, default=400, help="mean, of pairs (default: 400)")
    parser.add_argument("--error-rate", type=float, default=0.005, help="per base (default: 0.005)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        if options.genomes:
            genomes = [genome for path in options.genomes for genome in read_genomes(path)]
        else:
            genomes = random_genomes(options.random_genomes, options.genome_length, seed=options.seed)
        library = Library(
            templates=options.reads,
            read_length=options.read_length,
            paired=options.paired,
            insert_length=options.insert_length,
            error_rate=options.error_rate,
            seed=options.seed,
        )
        paths = write_fastq(options.out, options.sample, simulate(genomes, library))
    except (InvalidInput, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(map(str, paths)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
