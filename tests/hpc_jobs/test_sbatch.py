"""The batch scripts, run as Slurm would run them on one node: by bash, in a deployed folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hpc_jobs import neighbours, store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """STRANDLOOP_HOME with this code and this Python, and an environment.sh."""
    home = tmp_path / "strandloop"
    home.mkdir()
    (home / "code").symlink_to(ROOT)
    (home / "env").symlink_to(sys.prefix)
    (home / "environment.sh").write_text("export OMPI_MCA_rmaps_base_oversubscribe=1\n")
    return home


def start(script: str, *arguments: str, home: Path | None, **variables: str) -> subprocess.Popen[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SLURM"))
    }
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", **variables}
    if home:
        environment["STRANDLOOP_HOME"] = str(home)
    command = ["bash", str(ROOT / "hpc_jobs" / script), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, cwd="/")


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def sbatch(
    script: str, *arguments: str, home: Path | None, **variables: str
) -> subprocess.CompletedProcess[str]:
    return finish(start(script, *arguments, home=home, **variables))


@pytest.fixture
def commands(home: Path) -> Path:
    """A folder for commands that stand in for those of the node, with an mpirun that notes how it was called."""
    folder = home / "bin"
    folder.mkdir()
    (home / "environment.sh").write_text(f"export PATH={folder}:$PATH\n")
    command(
        folder,
        "mpirun",
        f'printf "%s\\n" "$@" > {home}/arguments; env | grep -E "^(OMPI|FI)_" | sort > {home}/exported',
    )
    return folder


def command(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{body}\n")
    (folder / name).chmod(0o755)


def until(condition: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_the_kernel_runs_from_the_deployed_folder(home: Path, tmp_path: Path) -> None:
    vectors = np.eye(6, 4, dtype=np.float32)
    ids = pa.array([f"r{row}" for row in range(6)])
    store.write_store(tmp_path / "store", ids, vectors, encoder_uri="e", encoder_revision="r")
    where = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "with a space")]
    done = sbatch("mpi_dna_seq.sbatch", *where, "--k", "2", home=home)
    assert done.returncode == 0, done.stderr
    assert neighbours.verify(tmp_path / "with a space").edges == 12


def test_what_it_asks_of_slurm() -> None:
    lines = (ROOT / "hpc_jobs" / "mpi_dna_seq.sbatch").read_text().splitlines()
    assert [line for line in lines if line.startswith("#SBATCH")] == [
        "#SBATCH --job-name=mpi_dna_seq",
        "#SBATCH --open-mode=append",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:USR1@180",
    ]


EXPORTED = ["-x", "PYTHONPATH", "-x", "PYTHONUNBUFFERED", "-x", "OPENBLAS_NUM_THREADS"]
ALWAYS = {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"}


@pytest.mark.parametrize(
    ("variables", "efa", "options", "environment"),
    [
        ({}, False, EXPORTED, {"OMPI_MCA_hwloc_base_binding_policy": "core"}),
        (
            {"SLURM_CPUS_PER_TASK": "4", "OMPI_MCA_hwloc_base_binding_policy": "none"},
            False,
            [*EXPORTED, "--map-by", "slot:PE=4"],
            {"OMPI_MCA_hwloc_base_binding_policy": "none"},
        ),
        (
            {},
            True,
            [*EXPORTED, "-x", "FI_PROVIDER"],
            {
                "FI_PROVIDER": "efa",
                "OMPI_MCA_hwloc_base_binding_policy": "core",
                "OMPI_MCA_mtl": "ofi",
                "OMPI_MCA_pml": "cm",
            },
        ),
    ],
    ids=["one core a rank", "four cores a rank", "with an EFA"],
)
def test_how_it_calls_mpirun(
    home: Path,
    commands: Path,
    variables: dict[str, str],
    efa: bool,
    options: list[str],
    environment: dict[str, str],
) -> None:
    command(commands, "fi_info", "exit 0" if efa else "exit 61")
    done = sbatch("mpi_dna_seq.sbatch", "--k", "two words", home=home, **variables)
    assert done.returncode == 0, done.stderr
    module = [f"{home}/env/bin/python", "-m", "hpc_jobs.mpi_dna_seq"]
    assert (home / "arguments").read_text().splitlines() == [*options, *module, "--k", "two words"]
    found = dict(line.split("=", 1) for line in (home / "exported").read_text().splitlines())
    inherited = ALWAYS | {name for name in os.environ if name.startswith(("OMPI_", "FI_"))}
    assert {name: value for name, value in found.items() if name not in inherited} == environment


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_told_to_stop_it_lets_the_kernel_save_and_goes_back_into_the_queue(
    home: Path, commands: Path, number: signal.Signals
) -> None:
    waits = "while :; do sleep 0.01; done"
    command(commands, "mpirun", f"trap 'echo saved; exit 75' USR1; touch {home}/began; {waits}")
    command(commands, "scontrol", f'echo "$@" > {home}/asked')
    command(commands, "squeue", "echo RUNNING")
    process = start("mpi_dna_seq.sbatch", home=home, SLURM_JOB_ID="7")
    until((home / "began").exists)
    process.send_signal(number)
    done = finish(process)
    assert (done.returncode, done.stdout.splitlines()[0]) == (75, "saved"), done.stderr
    assert (home / "asked").read_text() == "requeue 7\n"


@pytest.mark.parametrize("status", [0, 1, 137])
def test_a_kernel_that_has_not_saved_is_not_queued_again(home: Path, commands: Path, status: int) -> None:
    command(commands, "mpirun", f"exit {status}")
    command(commands, "scontrol", f"touch {home}/asked")
    assert sbatch("mpi_dna_seq.sbatch", home=home, SLURM_JOB_ID="7").returncode == status
    assert not (home / "asked").exists()


@pytest.mark.parametrize("answer", ["echo COMPLETING", "exit 1"])
def test_a_job_that_was_cancelled_does_not_come_back(home: Path, commands: Path, answer: str) -> None:
    command(commands, "mpirun", "exit 75")
    command(commands, "squeue", answer)
    command(commands, "scontrol", f"touch {home}/asked")
    done = sbatch("mpi_dna_seq.sbatch", home=home, SLURM_JOB_ID="7")
    assert done.returncode == 75
    assert "does not go back into the queue" in done.stdout
    assert not (home / "asked").exists()


def test_where_slurm_refuses_it_says_what_to_do(home: Path, commands: Path) -> None:
    command(commands, "mpirun", "exit 75")
    command(commands, "squeue", "echo RUNNING")
    command(commands, "scontrol", "echo Requested operation is presently disabled >&2; exit 1")
    done = sbatch("mpi_dna_seq.sbatch", home=home, SLURM_JOB_ID="7")
    assert done.returncode == 75
    assert "submit it again to go on from its checkpoint" in done.stderr


def test_any_module_of_the_code_runs_and_gives_its_exit_status(home: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(3))
    arguments = ["from-npy", str(tmp_path / "x.npy"), str(tmp_path / "store")]
    assert sbatch("run_module.sbatch", "hpc_jobs.store", *arguments, home=home).returncode == 0
    failed = sbatch("run_module.sbatch", "hpc_jobs.store", "verify", str(tmp_path / "nowhere"), home=home)
    assert failed.returncode == 1
    assert "has no manifest.json" in failed.stderr


@pytest.mark.parametrize("script", ["mpi_dna_seq.sbatch", "run_module.sbatch"])
def test_a_script_says_what_it_needs(script: str) -> None:
    failed = sbatch(script, home=None)
    assert failed.returncode != 0
    assert "STRANDLOOP_HOME: set it to <shared directory>/strandloop" in failed.stderr
