"""Simulated reads are where their names say, as wrong as their qualities say, and the same for the same seed."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import InvalidInput
from tasks.reads import simulate as simulation
from tasks.reads.simulate import Genome, Library, Truth, random_genomes, read_genomes, simulate, write_fastq
from tasks.reads.sources import read_blocks

COMPLEMENT = bytes.maketrans(b"ACGTN", b"TGCAN")


@pytest.fixture(scope="module")
def genomes() -> list[Genome]:
    return random_genomes(3, 3000, seed=5)


def true_sequence(genomes: list[Genome], truth: Truth, length: int) -> bytes:
    genome = next(genome for genome in genomes if genome.name == truth.genome)
    text = genome.sequence[truth.position : truth.position + length].tobytes()
    return text if truth.strand == "+" else text.translate(COMPLEMENT)[::-1]


@pytest.mark.parametrize("paired", [False, True])
def test_without_errors_reads_are_what_stands_at_their_position(genomes: list[Genome], paired: bool) -> None:
    files = simulate(genomes, Library(templates=200, read_length=80, paired=paired, error_rate=0, n_rate=0))
    assert len(files) == 1 + paired
    for reads in files:
        truths = [Truth.from_name(name) for name in reads.names]
        for truth, sequence in zip(truths, reads.sequences, strict=True):
            assert sequence.tobytes() == true_sequence(genomes, truth, 80)
        assert {truth.strand for truth in truths} == {"+", "-"}
        assert {truth.genome for truth in truths} == {"genome1", "genome2", "genome3"}


def test_mates_face_each_other_across_the_insert(genomes: list[Genome]) -> None:
    first, second = simulate(genomes, Library(templates=300, read_length=50, paired=True, insert_length=400))
    sizes = []
    for name, mate_name in zip(first.names, second.names, strict=True):
        assert name[:-2] == mate_name[:-2]
        mates = [Truth.from_name(name), Truth.from_name(mate_name)]
        left, right = sorted(mates, key=lambda truth: truth.strand)
        assert (left.strand, right.strand, left.genome) == ("+", "-", right.genome)
        sizes.append(right.position + 50 - left.position)
    assert 390 < np.mean(sizes) < 410


def test_errors_are_as_many_as_asked_and_as_the_qualities_say(genomes: list[Genome]) -> None:
    (reads,) = simulate(genomes, Library(templates=3000, read_length=100, error_rate=0.02, n_rate=0.001))
    truth = np.stack(
        [
            np.frombuffer(true_sequence(genomes, Truth.from_name(name), 100), dtype=np.uint8)
            for name in reads.names
        ]
    )
    called = reads.sequences != ord("N")
    wrong = (reads.sequences != truth) & called
    assert wrong.mean() == pytest.approx(0.02, rel=0.05)
    assert (~called).mean() == pytest.approx(0.001, rel=0.2)
    assert (10.0 ** (reads.qualities[called] / -10.0)).mean() == pytest.approx(0.02, rel=0.2)
    assert wrong[:, 80:].mean() > 3 * wrong[:, :20].mean()


def test_the_same_seed_gives_the_same_files(genomes: list[Genome], tmp_path: Path) -> None:
    library = Library(templates=50, paired=True)
    one, two = (write_fastq(tmp_path / name, "mix", simulate(genomes, library)) for name in ("one", "two"))
    assert [path.name for path in one] == ["mix_1.fq.gz", "mix_2.fq.gz"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    other = simulate(genomes, Library(templates=50, paired=True, seed=2))
    assert other[0].names != simulate(genomes, library)[0].names


def test_fastq_reads_back(genomes: list[Genome]) -> None:
    (reads,) = simulate(genomes, Library(templates=40, read_length=70))
    (block,) = read_blocks(io.BytesIO(reads.to_fastq()), source="x", quality_offset=33)
    assert [name.decode() for name in block.names] == reads.names
    assert np.array_equal(block.sequence, reads.sequences.ravel())
    assert np.array_equal(block.quality, reads.qualities.ravel())


def test_random_genomes_differ_in_composition() -> None:
    def profile(genome: Genome) -> np.ndarray:
        codes = np.searchsorted(np.frombuffer(b"ACGT", dtype=np.uint8), genome.sequence)
        return np.bincount(16 * codes[:-2] + 4 * codes[1:-1] + codes[2:], minlength=64) / len(codes)

    first, second = random_genomes(2, 50_000, seed=1)
    halves = [profile(Genome("half", half)) for half in np.split(first.sequence, 2)]
    assert np.abs(profile(first) - profile(second)).sum() > 3 * np.abs(halves[0] - halves[1]).sum()


def test_genomes_are_read_from_fasta(tmp_path: Path) -> None:
    (tmp_path / "E. coli.fa.gz").write_bytes(gzip.compress(b">chr1 x\r\nACGT\r\nacgRT\r\n>plasmid\nGG\n"))
    chromosome, plasmid = read_genomes(tmp_path / "E. coli.fa.gz")
    assert (chromosome.name, chromosome.sequence.tobytes()) == ("E.1", b"ACGTACGNT")
    assert (plasmid.name, plasmid.sequence.tobytes()) == ("E.2", b"GG")
    (tmp_path / "one.fa").write_bytes(b">c\nAC\nGT\n")
    assert [(genome.name, genome.sequence.tobytes()) for genome in read_genomes(tmp_path / "one.fa")] == [
        ("one", b"ACGT")
    ]


def test_a_genome_shorter_than_a_template_is_refused(genomes: list[Genome]) -> None:
    with pytest.raises(InvalidInput, match="'genome1' has 3,000 bases, too few"):
        simulate(genomes, Library(templates=1, read_length=5000))


def test_names_of_other_reads_hold_no_truth() -> None:
    with pytest.raises(ValueError, match="not the name of a simulated read"):
        Truth.from_name("SRR001.1")


def test_the_command_writes_files_and_prints_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path), "--random-genomes", "2", "--genome-length", "2000", "--reads", "20"]
    monkeypatch.setattr(sys, "argv", ["simulate", *arguments, "--paired"])
    assert simulation.main() == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "simulated_1.fq.gz"),
        str(tmp_path / "simulated_2.fq.gz"),
    ]
