"""Panels: reads of known species, built once and never changed."""

from __future__ import annotations

import gzip
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from tasks import results
from tasks.errors import ConflictingResult, InvalidInput, StrandloopError
from tasks.learning.panel import Panel, build, main, panels
from tasks.object_store import ObjectStore, ObjectUri
from tasks.reads.simulate import random_genomes

COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")


@pytest.fixture(scope="module")
def texts() -> dict[str, bytes]:
    return {genome.name: genome.sequence.tobytes() for genome in random_genomes(3, 3000, seed=5)}


@pytest.fixture
def genomes(texts: dict[str, bytes], tmp_path: Path) -> dict[str, Path]:
    """``one`` is in two records and a short one, ``two`` in lines of gzip, ``three`` as it comes."""
    one, two, three = texts.values()
    lines = b"\n".join(two[at : at + 70] for at in range(0, len(two), 70))
    files = {
        "one": b">a\n" + one[:2000] + b"\n>b\n" + one[2000:] + b"\n>c\n" + one[:149] + b"\n",
        "two": gzip.compress(b">chromosome\n" + lines),
        "three": b">three\n" + three + b"\n",
    }
    paths = {}
    for species, body in files.items():
        paths[species] = tmp_path / f"{species}.fa"
        paths[species].write_bytes(body)
    return paths


def reads_of(panel: Panel) -> dict[str, list[bytes]]:
    bases, offsets = panel.sequences.bases, panel.sequences.offsets
    found: dict[str, list[bytes]] = {}
    for species, start, end in zip(panel.species, offsets[:-1], offsets[1:], strict=True):
        found.setdefault(str(species), []).append(bases[start:end].tobytes())
    return found


def test_reads_are_of_the_species_that_they_are_said_to_be(
    s3_root: str, store: ObjectStore, genomes: dict[str, Path], texts: dict[str, bytes]
) -> None:
    told = build(store, s3_root, "three", genomes, reads=40, read_length=150)
    assert told["status"] == "written"
    counts = [
        (told["species"][each]["contigs"], told["species"][each]["contigs_too_short"]) for each in genomes
    ]
    assert counts == [(2, 1), (1, 0), (1, 0)]

    (panel,) = panels(store, s3_root)
    assert panel.name == "three"
    found = reads_of(panel)
    assert {species: len(reads) for species, reads in found.items()} == dict.fromkeys(genomes, 40)
    for species, text in zip(genomes, texts.values(), strict=True):
        both_strands = text + b"|" + text.translate(COMPLEMENT)[::-1]
        for read in found[species]:
            assert len(read) == 150
            assert any(read[at : at + 20] in both_strands for at in range(130))


def test_a_panel_never_changes(s3_root: str, store: ObjectStore, genomes: dict[str, Path]) -> None:
    first = build(store, s3_root, "zoo", genomes, reads=30)
    (before,) = panels(store, s3_root)
    backwards = dict(reversed(genomes.items()))
    assert build(store, s3_root, "zoo", backwards, reads=30) == first | {"status": "unchanged"}

    with pytest.raises(ConflictingResult, match="panels/zoo was made of other genomes or numbers"):
        build(store, s3_root, "zoo", genomes, reads=31)
    with pytest.raises(ConflictingResult):
        build(store, s3_root, "zoo", genomes, reads=30, seed=2)
    genomes["two"].write_bytes(gzip.compress(b">other\n" + b"ACGT" * 100))
    with pytest.raises(ConflictingResult):
        build(store, s3_root, "zoo", genomes, reads=30)
    (after,) = panels(store, s3_root)
    assert reads_of(after) == reads_of(before)


def test_of_two_panels_of_one_name_at_once_one_stands_whole(
    s3_root: str, store: ObjectStore, genomes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    both, find = Barrier(2), results.find

    def found_by_both(*place: ObjectUri) -> results.ResultManifest | None:
        known = find(*place)
        if known is None:
            both.wait(timeout=60)
        return known

    monkeypatch.setattr(results, "find", found_by_both)

    def attempt(seed: int) -> str:
        try:
            return str(build(store, s3_root, "zoo", genomes, reads=20, seed=seed)["status"])
        except ConflictingResult:
            return "refused"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(attempt, (1, 2))) == ["refused", "written"]
    (panel,) = panels(store, s3_root)
    assert len(panel.sequences) == 60


def test_a_species_has_the_same_reads_in_every_company(
    s3_root: str, store: ObjectStore, genomes: dict[str, Path]
) -> None:
    build(store, s3_root, "all", genomes, reads=20)
    build(store, s3_root, "some", {each: genomes[each] for each in ("one", "three")}, reads=20)
    every, some = panels(store, s3_root)
    assert (every.name, some.name) == ("all", "some")
    assert reads_of(some) == {species: reads_of(every)[species] for species in ("one", "three")}
    assert not set(reads_of(some)["one"]) & set(reads_of(some)["three"])


def test_what_was_never_finished_is_no_panel(
    s3_root: str, store: ObjectStore, genomes: dict[str, Path]
) -> None:
    assert panels(store, s3_root) == []
    store.put_bytes(ObjectUri.parse(s3_root) / "panels" / "half" / "reads-00000000.parquet", b"PAR1")
    assert panels(store, s3_root) == []
    assert build(store, s3_root, "half", genomes, reads=20)["status"] == "written"
    assert [panel.name for panel in panels(store, s3_root)] == ["half"]


def test_reads_that_are_mostly_n_are_left_out(
    s3_root: str, store: ObjectStore, genomes: dict[str, Path], texts: dict[str, bytes]
) -> None:
    genome = texts["genome1"]
    genomes["one"].write_bytes(b">a\n" + genome[:1500] + b"N" * 700 + genome[1500:])
    build(store, s3_root, "gaps", genomes, reads=100)
    (panel,) = panels(store, s3_root)
    assert max(read.count(b"N") for read in reads_of(panel)["one"]) <= 15


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (None, "one.fa cannot be read: No such file"),
        (b"", "no FASTA record of 150 bases or more (0 shorter ones)"),
        (b">a\nACGT\n>b\nAC\n", "no FASTA record of 150 bases or more (2 shorter ones)"),
        (b"@r\nACGT\n+\nIIII\n", "one.fa: record 1: the header line does not start with '>'"),
        (
            b">a\n" + b"ACGT" * 50 + b"\n>b\nMKLV-\n",
            "one.fa: record 2: the sequence has a character that is no",
        ),
        (gzip.compress(b">a\n" + b"ACGT" * 5000)[:-9], "one.fa: the gzip data is cut off"),
        (b"BZh91AY", "one.fa is compressed with bzip2"),
        (b">a\n" + b"N" * 3000, "half of what was drawn of 'one' is N"),
    ],
    ids=["missing", "empty", "short", "FASTQ", "protein", "cut off", "bzip2", "gaps"],
)
def test_a_bad_genome_is_a_sentence(
    body: bytes | None, told: str, s3_root: str, store: ObjectStore, genomes: dict[str, Path]
) -> None:
    genomes["one"].unlink()
    if body is not None:
        genomes["one"].write_bytes(body)
    with pytest.raises(InvalidInput) as refused:
        build(store, s3_root, "zoo", genomes)
    assert told in str(refused.value)
    assert panels(store, s3_root) == []


def test_all_that_is_wrong_with_a_request_is_told(
    s3_root: str, store: ObjectStore, genomes: dict[str, Path]
) -> None:
    with pytest.raises(StrandloopError) as refused:
        build(store, s3_root, "a/b", {"one": genomes["one"]}, reads=3, read_length=20)
    for problem in ("not 'a/b'", "two species or more", "3 reads of a species", "reads of 20 bases"):
        assert problem in str(refused.value)


def test_the_command_builds_and_repeats(
    s3_root: str, genomes: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["build", "--data-uri", s3_root, "--name", "zoo", "--reads", "25"]
    species = [f"E. {species}={path}" for species, path in genomes.items()]
    assert main([*arguments, *species]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "E. one: 25 reads of 2 contig(s), 1 too short"
    assert lines[-1] == "panel zoo: written"
    assert main([*arguments, *species]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "panel zoo: unchanged"
    assert main([*arguments, "--seed", "2", *species]) == 65
    assert "error: " in capsys.readouterr().err
    for wrong in ([*species, species[0]], ["one.fa", "two.fa"]):
        with pytest.raises(SystemExit, match="2"):
            main([*arguments, *wrong])
