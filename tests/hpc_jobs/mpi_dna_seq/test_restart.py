"""A run that is killed or told to stop, anywhere, goes on where it was and gives the same bytes.

All in one run, that is started nine times: starting it is what takes time.
"""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.hpc_jobs.mpi_dna_seq.kernel_runs import mpirun, unit_vectors, write

ENDED_RUN = Path(__file__).with_name("ended_run.py")
RANKS, ROWS, UNITS = 3, 600, 24
SAVED = 75
ENDS = [  # signal, where, how often the rank comes there before, rank, exit status
    (signal.SIGKILL, "amid a unit", 9, 1, 137),
    (signal.SIGKILL, "file of a checkpoint written", 3, 0, 137),
    (signal.SIGUSR1, "between units", 3, 2, SAVED),
    (signal.SIGKILL, "checkpoint committed", 2, 0, 137),
    (signal.SIGTERM, "between units", 2, 1, SAVED),
    (signal.SIGKILL, "parts written", 1, 0, 137),
    (signal.SIGKILL, "result written", 1, 0, 137),
]


def run(
    directory: Path, out: Path, checkpoint: Path, *end: object, k: int = 5
) -> subprocess.CompletedProcess[str]:
    """The kernel on two members, of two ranks and of one; saves whenever it may."""
    where = ["--store", str(directory), "--out", str(out), "--checkpoint", str(checkpoint)]
    how = ["--checkpoint-seconds", "0", "--ranks-per-member", "2", "--k", str(k)]
    signal_and_place = map(str, end or ("SIGUSR1", "amid a unit", 10**9, 0))
    return mpirun(RANKS, str(ENDED_RUN), *signal_and_place, *where, *how)


def result(out: Path) -> dict[str, bytes]:
    """The files of a result, but for those that tell of a run's time."""
    return {
        path.name: path.read_bytes()
        for path in out.iterdir()
        if path.name not in ("metrics.json", "progress.json")
    }


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("restart") / "store", unit_vectors(ROWS, 16))


def test_one_run_ended_everywhere_gives_the_bytes_of_an_undisturbed_one(
    directory: Path, tmp_path: Path
) -> None:
    undisturbed, out, checkpoint = tmp_path / "undisturbed", tmp_path / "knn", tmp_path / "checkpoint"
    assert run(directory, undisturbed, tmp_path / "other").returncode == 0
    assert not (tmp_path / "other").exists()
    done_before = 0
    for number, place, times, rank, status in ENDS:
        ended = run(directory, out, checkpoint, number.name, place, times, rank)
        assert ended.returncode == status, ended.stderr
        if found := re.search(r"goes on after unit (\d+) of (\d+)", ended.stdout):
            assert (int(found[1]) >= done_before, int(found[2])) == (True, UNITS)
            done_before = int(found[1])
        if status == SAVED:
            assert "told to stop: saved in" in ended.stdout
            assert '"status": "saved"' in (out / "progress.json").read_text()
        assert (out / "manifest.json").exists() == (place == "result written")
        assert len({path.name.partition("-")[0] for path in checkpoint.glob("*.lists")}) <= 2, (
            "old steps stay"
        )
        if number == signal.SIGUSR1:
            saved = result(checkpoint)
            refused = run(directory, out, checkpoint, k=4)
            assert (refused.returncode, refused.stderr.count("refused:")) == (1, 1)
            assert "another computation (k 5 instead of 4)" in refused.stderr
            assert result(checkpoint) == saved
    assert done_before > UNITS // 2
    again = run(directory, out, checkpoint)
    assert (again.returncode, again.stdout.split(":")[0]) == (0, "unchanged"), again.stderr
    assert result(out) == result(undisturbed)
    assert not checkpoint.exists()
