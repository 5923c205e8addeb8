"""Landing a batch and checking what was landed, against a real S3 server."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pysam
import pytest
from backports import zstd

from tasks.batches import Batch
from tasks.errors import InvalidBatch
from tasks.landing import put, read_manifest, validate_batch
from tasks.landing.libraries import group_files
from tasks.object_store import ObjectStore

RECORD = b"@%s%d\nACGTACGT\n+\n%s\n"


def write_reads(path: Path, records: int, *, name: bytes = b"r", quality: bytes = b"IIII#III") -> Path:
    text = b"".join(RECORD % (name, number, quality) for number in range(records))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    return path


@pytest.fixture
def batch(s3_root: str) -> Batch:
    return Batch(s3_root, "2026-11-20")


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return [write_reads(tmp_path / f"ecoli_R{mate}_001.fastq.gz", 30, quality=b"hhhhBBBB") for mate in (1, 2)]


@pytest.fixture
def files(tmp_path: Path, pair: list[Path]) -> list[Path]:
    return [write_reads(tmp_path / "nanopore.fq", 20), *pair]


def objects(batch: Batch) -> dict[str, bytes]:
    """Everything below the root, key -> body."""
    store = ObjectStore()
    return {info.uri.key: store.get_bytes(info.uri) for info in store.list(batch.root)}


def rewrite_manifest(batch: Batch, change: Any) -> None:
    uri = batch.landing / "manifest.json"
    manifest = ObjectStore().get_json(uri)
    change(manifest)
    ObjectStore().put_json(uri, manifest)


def problems(batch: Batch) -> list[str]:
    with pytest.raises(InvalidBatch) as error:
        validate_batch(batch.data_uri, batch.batch_id)
    return error.value.problems


def test_a_landed_batch_is_valid_and_says_what_it_holds(
    batch: Batch, files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert put(files, batch).status == "written"
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    size = {path.name: f"{path.stat().st_size:,}" for path in files}
    assert ["sample", "layout", "file", "records", "encoding", "bytes"] in shown
    assert ["ecoli", "paired", files[1].name, "30", "phred+64", size[files[1].name]] in shown
    assert [files[2].name, "30", size[files[2].name]] in shown
    assert ["nanopore", "single", "nanopore.fq", "20", "phred+33", size["nanopore.fq"]] in shown

    manifest, sha256 = read_manifest(ObjectStore(), batch)
    ecoli, nanopore = manifest.samples
    assert (ecoli.name, ecoli.layout, ecoli.quality_offset) == ("ecoli", "paired", 64)
    assert [file.key for file in ecoli.files] == [f"ecoli/{path.name}" for path in files[1:]]
    assert (nanopore.layout, nanopore.quality_offset, nanopore.files[0].records) == ("single", 33, 20)
    assert objects(batch)["landing/2026-11-20/nanopore/nanopore.fq"] == files[0].read_bytes()

    summary = validate_batch(batch.data_uri, batch.batch_id)
    assert summary == {
        "status": "unchanged",
        "batch_id": "2026-11-20",
        "samples": 2,
        "files": 3,
        "records": 80,
        "bytes": sum(path.stat().st_size for path in files),
        "landing_sha256": sha256,
    }
    assert json.loads(json.dumps(summary)) == summary


def test_a_second_put_changes_nothing(
    batch: Batch, files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    put(files, batch)
    before = {info.uri.key: info.etag for info in ObjectStore().list(batch.root)}
    assert put(files[::-1], batch).status == "unchanged"
    assert "holds these 3 file(s) of 2 sample(s) already: nothing was changed" in capsys.readouterr().out
    assert {info.uri.key: info.etag for info in ObjectStore().list(batch.root)} == before


def test_other_reads_under_the_same_batch_id_are_refused(
    batch: Batch, files: list[Path], tmp_path: Path
) -> None:
    put(files, batch)
    before = objects(batch)
    write_reads(files[0], 21)
    with pytest.raises(InvalidBatch) as error:
        put([files[0], write_reads(tmp_path / "new.fq", 3)], batch)
    text = str(error.value)
    assert "sample 'new' was not in it" in text
    assert "sample 'ecoli' was, and is not given now" in text
    assert "sample 'nanopore' had other reads" in text
    assert "another batch id" in text
    assert objects(batch) == before


def test_damaged_files_are_all_named_and_nothing_is_uploaded(
    batch: Batch, files: list[Path], tmp_path: Path
) -> None:
    cut = tmp_path / "cut.fq.gz"
    cut.write_bytes(write_reads(cut, 5000).read_bytes()[:-20])
    page = tmp_path / "page.fq"
    page.write_bytes(b"<html>\n")
    with pytest.raises(InvalidBatch) as error:
        put([*files, cut, page], batch)
    first, second = error.value.problems
    assert f"{cut}: the gzip data is cut off; the last good record before it is number" in first
    assert f"{page} has no record that can be read" in second
    assert objects(batch) == {}


def test_broken_records_are_only_warned_of(batch: Batch, tmp_path: Path) -> None:
    path = write_reads(tmp_path / "s.fq", 3)
    start = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"@bad\nAC?T\n+\nIIII\n" + RECORD % (b"r", 9, b"IIIIIIII"))
    lines: list[str] = []
    landing = put([path], batch, tell=lines.append)
    (warning,) = (line for line in lines if "warning" in line)
    assert f"{path}: 1 of 5 records cannot be read" in warning
    assert f"the first is record 4 at byte {start} of the text" in warning
    assert landing.manifest.samples[0].files[0].records == 5


def test_every_format_is_landed(batch: Batch, tmp_path: Path) -> None:
    texts = {
        "bases.fasta.gz": gzip.compress(b">r1\nAC\nGT\n>r2\nACGT\n"),
        "frames.fq.zst": zstd.compress(RECORD % (b"r", 1, b"IIIIIIII")),
        "failed.fq": b"",
    }
    for name, body in texts.items():
        (tmp_path / name).write_bytes(body)
    bam = tmp_path / "unaligned.bam"
    with pysam.AlignmentFile(str(bam), "wb", header={"HD": {"VN": "1.6"}}) as file:
        record = pysam.AlignedSegment(file.header)
        record.query_name, record.flag, record.query_sequence = "r1", 4, "ACGT"
        file.write(record)
    lines: list[str] = []
    landing = put([bam, *(tmp_path / name for name in texts)], batch, tell=lines.append)
    found = {sample.name: (sample.layout, sample.files[0].records) for sample in landing.manifest.samples}
    assert found == {
        name: ("single", n) for name, n in (("bases", 2), ("failed", 0), ("frames", 1), ("unaligned", 1))
    }
    assert f"  warning: {tmp_path / 'failed.fq'} is empty" in lines
    assert validate_batch(batch.data_uri, batch.batch_id)["records"] == 4


def test_interleaved_pairs_are_landed_as_such(batch: Batch, tmp_path: Path) -> None:
    path = write_reads(tmp_path / "pairs_R1.fq", 0)
    path.write_bytes(b"".join(RECORD % (b"r", n // 2, b"IIIIIIII") for n in range(6)))
    put([path], batch, interleaved=True)
    (sample,) = read_manifest(ObjectStore(), batch)[0].samples
    assert (sample.name, sample.layout, sample.files[0].records) == ("pairs_R1", "interleaved", 6)
    write_reads(path, 6)
    with pytest.raises(InvalidBatch, match="does not hold one pair after the other: record 1"):
        put([path], batch, interleaved=True)


def test_pairs_that_are_not_as_long_are_refused(batch: Batch, pair: list[Path]) -> None:
    write_reads(pair[1], 29)
    with pytest.raises(
        InvalidBatch, match=r"as many records each, but .*R2_001.fastq.gz ends after record 29"
    ):
        put(pair, batch)


def test_large_files_are_uploaded_in_parts(batch: Batch, tmp_path: Path) -> None:
    path = write_reads(tmp_path / "large.fq", 1, name=b"x" * (9 << 20))
    put([path], batch)
    info = ObjectStore().head(batch.landing / "large/large.fq")
    assert info is not None
    assert "-2" in info.etag  # S3's mark of an upload in two parts
    assert validate_batch(batch.data_uri, batch.batch_id)["bytes"] == path.stat().st_size


def test_all_problems_are_reported_at_once_and_the_batch_stays_as_it_was(
    batch: Batch, files: list[Path]
) -> None:
    put(
        [*files, write_reads(files[0].with_name("b.fq"), 4), write_reads(files[0].with_name("c.fq"), 4)],
        batch,
    )
    store = ObjectStore()
    store.delete(batch.landing / "nanopore/nanopore.fq")
    store.put_bytes(batch.landing / "b/b.fq", b"other")
    same_size = bytearray(store.get_bytes(batch.landing / "c/c.fq"))
    same_size[0] ^= 1
    store.put_bytes(batch.landing / "c/c.fq", bytes(same_size))

    def change(manifest: Any) -> None:
        manifest["batch_id"] = "2026-11-19"
        ecoli = next(sample for sample in manifest["samples"] if sample["name"] == "ecoli")
        ecoli["files"][1]["records"] += 1
        ecoli["quality_encoding"] = "solexa"

    rewrite_manifest(batch, change)
    before = objects(batch)
    found = problems(batch)
    expected = [
        "batch_id is '2026-11-19', but must be '2026-11-20'",
        "sample 'ecoli': quality_encoding is 'solexa', but must be one of: phred+33, phred+64",
        "sample 'ecoli': the files of a pair have as many records each",
        "b/b.fq has 5 bytes, but the manifest says",
        "c/c.fq has the SHA-256",
        "nanopore/nanopore.fq is named in the manifest but does not exist",
    ]
    assert len(found) == len(expected)
    for part, problem in zip(expected, found, strict=True):
        assert part in problem
    assert objects(batch) == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda m: m.update(samples=[]), "at least one sample"),
        (lambda m: m.pop("samples"), "at least one sample"),
        (lambda m: m.update(format="zip"), "format is 'zip', but must be 'strandloop-landing'"),
        (lambda m: m.update(format_version=2), "format_version is 2, but must be 1"),
        (lambda m: m["samples"].append("x"), "sample 3: name is None"),
        (lambda m: m["samples"].append(m["samples"][1]), "sample name 'nanopore' is there 2 times"),
        (lambda m: m["samples"][0].update(name="a:b"), "sample 1: name is 'a:b'"),
        (lambda m: m["samples"][0].update(layout="single"), "a single sample has 1 file(s), but 2 are named"),
        (lambda m: m["samples"][0].update(layout=["paired"]), "layout is ['paired']"),
        (lambda m: m["samples"][0].update(files=None), "files must be a list of objects, but is None"),
        (lambda m: m["samples"][0]["files"].pop(), "a paired sample has 2 file(s), but 1 are named"),
        (
            lambda m: m["samples"][1].update(
                layout="interleaved", files=[m["samples"][1]["files"][0] | {"records": 3}]
            ),
            "pairs of records, but 3",
        ),
        (lambda m: m["samples"][1]["files"][0].update(key="../x"), "key is '../x'"),
        (lambda m: m["samples"][1]["files"][0].update(key="a/../../x"), "key is 'a/../../x'"),
        (lambda m: m["samples"][1]["files"][0].update(key="/x"), "key is '/x'"),
        (lambda m: m["samples"][1]["files"][0].update(bytes="12"), "bytes is '12'"),
        (lambda m: m["samples"][1]["files"][0].update(bytes=True), "bytes is True"),
        (lambda m: m["samples"][1]["files"][0].update(sha256="00"), "sha256 is '00'"),
        (lambda m: m["samples"][1]["files"][0].update(records=-1), "records is -1"),
    ],
)
def test_a_manifest_that_is_not_as_agreed_is_refused(
    batch: Batch, files: list[Path], change: Any, problem: str
) -> None:
    put(files, batch)
    rewrite_manifest(batch, change)
    assert any(problem in found for found in problems(batch))
    with pytest.raises(InvalidBatch):
        read_manifest(ObjectStore(), batch)


def test_records_need_not_be_counted(batch: Batch, files: list[Path]) -> None:
    put(files, batch)
    rewrite_manifest(batch, lambda manifest: manifest["samples"][0]["files"][0].pop("records"))
    assert validate_batch(batch.data_uri, batch.batch_id)["records"] is None


@pytest.mark.parametrize(
    ("body", "problem"),
    [(b"{oops", "is not JSON"), (b"[]", "is not a JSON object"), (b"\xff", "is not JSON")],
)
def test_a_manifest_that_is_no_json_object_is_refused(batch: Batch, body: bytes, problem: str) -> None:
    ObjectStore().put_bytes(batch.landing / "manifest.json", body)
    (found,) = problems(batch)
    assert problem in found


def test_a_batch_without_manifest_says_how_to_land_it(batch: Batch) -> None:
    (found,) = problems(batch)
    assert f"there is no {batch.landing}/manifest.json; land the batch: python -m tasks.landing put" in found


@pytest.mark.parametrize(
    ("names", "libraries"),
    [
        (["a_1.fq.gz", "a_2.fq.gz"], {"a": ["a_1.fq.gz", "a_2.fq.gz"]}),
        (["a_R2.fastq", "a_R1.fastq"], {"a": ["a_R1.fastq", "a_R2.fastq"]}),
        (["a.1.fq", "a.2.fq"], {"a": ["a.1.fq", "a.2.fq"]}),
        (["a_read1.fq", "a_read2.fq"], {"a": ["a_read1.fq", "a_read2.fq"]}),
        (["x_S1_L001_R1_001.fastq.gz", "x_S1_L001_R2_001.fastq.gz"], {"x_S1_L001": None}),
        (["read1.fq.gz", "read2.fq.gz"], {"lab": ["read1.fq.gz", "read2.fq.gz"]}),
        (["R1.fq.gz", "R2.fq.gz"], {"lab": ["R1.fq.gz", "R2.fq.gz"]}),
        (["reads_1.fq.gz", "reads_2.fq.gz"], {"lab": ["reads_1.fq.gz", "reads_2.fq.gz"]}),
        (["a_1.fq", "b_2.fq"], {"a_1": ["a_1.fq"], "b_2": ["b_2.fq"]}),
        (["a_1.fq", "a.2.fq"], {"a_1": ["a_1.fq"], "a.2": ["a.2.fq"]}),
        (["strain1.fq", "strain2.fq"], {"strain1": ["strain1.fq"], "strain2": ["strain2.fq"]}),
        (["Illumina1.8.fq.gz"], {"Illumina1.8": ["Illumina1.8.fq.gz"]}),
        (["a_R1.fastq.zst", "a_R2.fastq.zst"], {"a": ["a_R1.fastq.zst", "a_R2.fastq.zst"]}),
        (
            ["run.bam", "asm.fna.bgz", "c.FASTA.gz"],
            {"run": ["run.bam"], "asm": ["asm.fna.bgz"], "c": ["c.FASTA.gz"]},
        ),
    ],
)
def test_pairs_and_samples_are_found_by_name(
    tmp_path: Path, names: list[str], libraries: dict[str, list[str] | None]
) -> None:
    paths = [write_reads(tmp_path / "lab" / name, 1) for name in names]
    found, wrong = group_files(paths)
    assert wrong == []
    assert {library.sample: [path.name for path in library.paths] for library in found} == {
        sample: paths or names for sample, paths in libraries.items()
    }


@pytest.mark.parametrize(
    ("names", "sample", "problem"),
    [
        (["missing.fq"], None, "missing.fq is not a file"),
        (["one/a.fq", "two/a.fq"], None, "2 samples would be called 'a'"),
        (["one/a.fq", "one/a.fq"], None, "is given 2 times"),
        (["my reads.fq"], None, "'my reads' cannot name a sample"),
        (
            ["one/a.fq", "one/b.fq"],
            "lab",
            "--sample names one file or one pair, but these are 2 samples: a, b",
        ),
        (["one/a.fq"], "a:b", "'a:b' cannot name a sample"),
    ],
)
def test_files_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, names: list[str], sample: str | None, problem: str
) -> None:
    paths = [tmp_path / name for name in names]
    for path in paths:
        if path.name != "missing.fq":
            write_reads(path, 1)
    _, wrong = group_files(paths, sample=sample)
    assert any(problem in line for line in wrong)


def test_the_command_lands_a_batch(batch: Batch, pair: list[Path], tmp_path: Path) -> None:
    def land(*paths: Path) -> subprocess.CompletedProcess[str]:
        where = ["--data-uri", batch.data_uri, "--batch-id", batch.batch_id, "--sample", "K-12"]
        command = [sys.executable, "-m", "tasks.landing", "put", *where, *map(str, paths)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = land(*pair)
    assert (done.returncode, done.stderr) == (0, "")
    assert "landed 2 file(s) of 1 sample(s), 60 records, as batch 2026-11-20" in done.stdout
    assert validate_batch(batch.data_uri, batch.batch_id)["records"] == 60
    refused = land(write_reads(tmp_path / "other.fq", 1))
    assert refused.returncode == 1
    assert "it was landed before, and not with these files" in refused.stderr
