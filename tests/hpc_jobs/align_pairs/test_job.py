"""The alignment as it runs: under mpirun, on files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from hpc_jobs import neighbours, store
from hpc_jobs.align_pairs import overlaps
from hpc_jobs.checked_file import sha256_of

ROOT = Path(__file__).parents[3]
READS, READ_BASES, K = 160, 90, 6
COMPLEMENT = str.maketrans("ACGT", "TGCA")


def align(commands: list[list[str]], *, ranks: int) -> list[tuple[int, str, str]]:
    """Status, standard output and standard error of each."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_btl_vader_single_copy_mechanism": "none",  # containers forbid process_vm_readv
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_mpi_yield_when_idle": "1",
    }
    runner = str(Path(__file__).with_name("align_cases.py"))
    launch = ["mpirun", "--quiet", "--bind-to", "none", "-np", str(ranks), sys.executable, runner]
    done = subprocess.run(
        [*launch, json.dumps(commands)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [tuple(case) for case in json.loads(done.stdout)]


@dataclass(frozen=True)
class Batch:
    """Reads of one genome, as files, with a k-NN graph, and where in the genome they are from."""

    folder: Path
    starts: np.ndarray
    strands: np.ndarray
    edges: np.ndarray
    """int64 (reads, K), neighbours of each read."""

    def command(self, out: str, *more: str, reads: str = "reads", knn: str = "knn") -> list[str]:
        names = {"store": "store", "reads": reads, "neighbours": knn, "out": out}
        return [
            *(text for name, value in names.items() for text in (f"--{name}", str(self.folder / value))),
            *more,
        ]

    def expected(self, *, mutual: bool, minimum: int) -> dict[tuple[int, int], tuple[int, int]]:
        """Pair -> strand and overlap in bases, from where the reads come from."""
        directed = {(read, neighbour) for read, row in enumerate(self.edges.tolist()) for neighbour in row}
        pairs = {(min(pair), max(pair)) for pair in directed if not mutual or (pair[1], pair[0]) in directed}
        found = {}
        for first, second in pairs:
            bases = READ_BASES - abs(int(self.starts[first] - self.starts[second]))
            if bases >= minimum:
                found[first, second] = (int(self.strands[first] * self.strands[second]), bases)
        return found


def write_reads(folder: Path, files: dict[str, pa.Table]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in files.items():
        pq.write_table(table, folder / name, compression="zstd")
    entries = [{"name": name, "bytes": 0, "sha256": sha256_of(folder / name)} for name in files]
    (folder / "manifest.json").write_text(json.dumps({"files": entries, "details": {}}))


def make_batch(folder: Path) -> Batch:
    rng = np.random.default_rng(1)
    genome = "".join(rng.choice(list("ACGT"), 1500))
    starts = rng.integers(0, len(genome) - READ_BASES, READS)
    strands = rng.choice([1, -1], READS)
    reads = [genome[start : start + READ_BASES] for start in starts]
    reads = [
        read if strand > 0 else read.translate(COMPLEMENT)[::-1]
        for read, strand in zip(reads, strands, strict=True)
    ]
    ids = pa.array([f"s:{row}" for row in range(READS)])
    vectors = np.eye(1, 4, dtype=np.float32).repeat(READS, axis=0)
    manifest = store.write_store(
        folder / "store", ids, vectors, encoder_uri="e", encoder_revision="r", shard_rows=45
    )
    table = pa.table({"read_id": ids, "sequence": reads, "length": [READ_BASES] * READS})
    begins = np.cumsum([0, *(shard.rows for shard in manifest.shards)])
    write_reads(
        folder / "reads",
        {
            shard.name: table.slice(begin, shard.rows)
            for begin, shard in zip(begins, manifest.shards, strict=False)
        },
    )
    # Half of the neighbours are the next in the genome, the others are anywhere.
    distance = np.abs(starts[:, None] - starts).astype(float)
    np.fill_diagonal(distance, np.inf)
    edges = np.argsort(distance, axis=1)[:, :K]
    for read in range(READS):
        others = np.setdiff1d(np.arange(READS), [read, *edges[read, : K // 2]])
        edges[read, K // 2 :] = rng.choice(others, K - K // 2, replace=False)
    knn = folder / "knn"
    knn.mkdir()
    scores = np.full((READS, K), 0.5, np.float32)
    parts = [
        neighbours.write_part(
            knn, number, first_row=begin, ids=edges[begin:end].astype(np.int64), scores=scores[begin:end]
        )
        for number, (begin, end) in enumerate([(0, 60), (60, 61), (61, READS)])
    ]
    store_sha256 = sha256_of(folder / "store" / "manifest.json")
    neighbours.write_manifest(knn, neighbours.NeighbourManifest(READS, K, store_sha256, tuple(parts)))
    return Batch(folder, starts, strands, edges)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    return make_batch(tmp_path_factory.mktemp("batch"))


def found_pairs(directory: Path) -> dict[tuple[int, int], tuple[int, int]]:
    return {
        (row["first"], row["second"]): (row["strand"], row["length"])
        for row in overlaps.read(directory).to_pylist()
    }


def test_any_number_of_ranks_finds_the_overlaps_that_the_genome_knows(batch: Batch) -> None:
    for ranks in (1, 3):
        commands = [
            batch.command(f"{pairs}-{ranks}", "--minimum-overlap", "40", "--pairs", pairs)
            for pairs in ("mutual", "all")
        ]
        for status, _, errors in align(commands, ranks=ranks):
            assert status == 0, errors
    for pairs in ("mutual", "all"):
        expected = batch.expected(mutual=pairs == "mutual", minimum=40)
        assert len(expected) > 50
        for ranks in (1, 3):
            out = batch.folder / f"{pairs}-{ranks}"
            assert found_pairs(out) == expected
            manifest = overlaps.verify(out)
            assert manifest.pairs == len(batch.expected(mutual=pairs == "mutual", minimum=-10_000))
            assert manifest.overlaps == len(expected)
            assert len(manifest.files) == ranks
        one, three = (overlaps.read(batch.folder / f"{pairs}-{ranks}") for ranks in (1, 3))
        assert one.equals(three)
        assert set(one["similarity"].to_pylist()) == {0.5}
        assert set(one["identity"].to_pylist()) == {1.0}
        for read in ("first", "second"):
            bases = pc.subtract(one[f"{read}_end"], one[f"{read}_begin"])
            assert bases.equals(one["length"])


def test_a_finished_result_stays_and_another_request_replaces_it(batch: Batch) -> None:
    out, stays = batch.folder / "again", batch.folder / "stays"
    for status, said, _ in align([batch.command("again"), batch.command("stays")], ranks=2):
        assert (status, "done:" in said) == (0, True)
    before = {path.name: path.stat().st_mtime_ns for path in stays.iterdir()}
    commands = [batch.command("stays"), batch.command("again", "--minimum-overlap", "80")]
    [(status, said, _), _] = align(commands, ranks=1)
    assert (status, said.split(":")[0]) == (0, "unchanged")
    assert {path.name: path.stat().st_mtime_ns for path in stays.iterdir()} == before
    assert set(found_pairs(out)) == set(batch.expected(mutual=True, minimum=80))
    names = ["manifest.json", "metrics.json", "overlaps-00000.parquet", "progress.json"]
    assert sorted(path.name for path in out.iterdir()) == names

    assert json.loads((out / "progress.json").read_text())["status"] == "done"

    # as a killed run of more ranks leaves it
    (out / "manifest.json").unlink()
    (out / "overlaps-00007.parquet").write_bytes(b"half")
    (out / ".overlaps-00000.parquet").write_bytes(b"half")
    with pytest.raises(overlaps.OverlapsError, match="not aligned to the end"):
        overlaps.verify(out)
    align([batch.command("again")], ranks=1)
    assert set(found_pairs(out)) == set(batch.expected(mutual=True, minimum=50))
    assert sorted(path.name for path in out.iterdir()) == names


def test_inputs_that_are_missing_damaged_or_of_another_batch_are_refused(batch: Batch) -> None:
    name = "part-00001.parquet"
    reads = {path.name: pq.read_table(path) for path in (batch.folder / "reads").glob("*.parquet")}
    others = len(reads[name]) - 1
    swapped = reads[name].take(pa.array([1, 0, *range(2, others + 1)]))
    longer = reads[name].set_column(1, "sequence", pa.array(["A" * 16_001, *["A"] * others]))
    for case in ("damaged", "gone"):
        write_reads(batch.folder / case, reads)
    damaged = batch.folder / "damaged" / name
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (batch.folder / "gone" / name).unlink()
    write_reads(batch.folder / "swapped", {**reads, name: swapped})
    write_reads(batch.folder / "longer", {**reads, name: longer})
    write_reads(batch.folder / "no sequences", {**reads, name: reads[name].drop_columns("sequence")})
    knn = json.loads((batch.folder / "knn" / "manifest.json").read_text())
    (batch.folder / "other knn").mkdir()
    (batch.folder / "other knn" / "manifest.json").write_text(
        json.dumps({**knn, "store_sha256": "00", "files": []})
    )
    of_reads = {
        "damaged": f"{name} does not have the SHA-256",
        "gone": f"{name} is not there",
        "swapped": f"{name} does not hold the reads that",
        "longer": "read s:45 of",
        "no sequences": "no readable column 'sequence'",
        "nowhere": "never finished",
    }
    of_knn = {"other knn": "is no k-NN result of the embedding store", "nowhere": "not computed to its end"}
    commands = [batch.command("refused", reads=case) for case in of_reads]
    commands += [batch.command("refused", knn=case) for case in of_knn]
    refusals = align(commands, ranks=2)
    for message, (status, _, errors) in zip([*of_reads.values(), *of_knn.values()], refusals, strict=True):
        assert status == 1
        assert errors.count("refused:") == 1
        assert message in errors
    assert overlaps.find(batch.folder / "refused") is None


def test_a_graph_without_edges_has_no_overlaps(tmp_path: Path) -> None:
    vectors = np.eye(1, 4, dtype=np.float32)
    ids = pa.array(["s:0"])
    store.write_store(tmp_path / "store", ids, vectors, encoder_uri="e", encoder_revision="r")
    write_reads(tmp_path / "reads", {"part-00000.parquet": pa.table({"read_id": ids, "sequence": ["ACGT"]})})
    (tmp_path / "knn").mkdir()
    store_sha256 = sha256_of(tmp_path / "store" / "manifest.json")
    neighbours.write_manifest(tmp_path / "knn", neighbours.NeighbourManifest(1, K, store_sha256, ()))
    alone = Batch(tmp_path, np.empty(0), np.empty(0), np.empty((1, 0), np.int64))
    [(status, _, errors)] = align([alone.command("out")], ranks=2)
    assert status == 0, errors
    assert overlaps.read(tmp_path / "out").num_rows == 0
    assert overlaps.verify(tmp_path / "out").pairs == 0


def test_the_batch_script_runs_from_the_deployed_folder(batch: Batch, tmp_path: Path) -> None:
    (tmp_path / "code").symlink_to(ROOT)
    (tmp_path / "env").symlink_to(sys.prefix)
    (tmp_path / "environment.sh").write_text(
        "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment["STRANDLOOP_HOME"] = str(tmp_path)
    command = ["bash", str(ROOT / "hpc_jobs" / "align_pairs.sbatch"), *batch.command("by script")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd="/")
    assert done.returncode == 0, done.stderr
    assert found_pairs(batch.folder / "by script") == batch.expected(mutual=True, minimum=50)
