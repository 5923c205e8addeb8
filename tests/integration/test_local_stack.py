"""The local stack itself: every part does its work, and the stack looks after its parts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from infra.local.memory_cgroup import MemoryCgroup
from infra.local.process_table import marked, process_table
from infra.local.processes import MARK
from infra.local.stack import Stack

pytestmark = pytest.mark.integration

# 127.0.0.1, plain and mapped into IPv6, in the byte order of /proc/net.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}

TWO_NODE_SCRIPT = """#!/bin/bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --output={log}
. {home}/environment.sh
mpirun -N 1 {home}/env/bin/python -c '
import os
from mpi4py import MPI
seen = MPI.COMM_WORLD.gather((MPI.COMM_WORLD.rank, os.environ["SLURMD_NODENAME"], os.environ["AWS_ENDPOINT_URL"]))
if MPI.COMM_WORLD.rank == 0:
    print(sorted(seen))
'
"""

RAY_PROGRAM = """
import os, time, ray

ray.init(log_to_driver=False)

@ray.remote
def where():
    time.sleep(1)
    return ray.get_runtime_context().get_node_id(), os.environ["AWS_ENDPOINT_URL"], os.environ.get("PYTHONPATH")

seen = set(ray.get([where.remote() for _ in range(2 * int(ray.cluster_resources()["CPU"]))]))
print("NODES", len({node for node, _, _ in seen}), sorted({str(each[1:]) for each in seen}))
"""


def test_up_again_changes_nothing(stack: Mapping[str, str], stack_state: Path) -> None:
    records = {path: path.read_text() for path in (stack_state / "run").iterdir()}
    shown = _command("up", stack_state)
    assert shown.returncode == 0, shown.stderr
    assert all("was up" in line for line in shown.stdout.splitlines()[:-1])
    assert {path: path.read_text() for path in (stack_state / "run").iterdir()} == records


def test_status_asks_every_part(stack: Mapping[str, str], stack_state: Path) -> None:
    shown = _command("status", stack_state)
    assert shown.returncode == 0, shown.stdout
    assert [line.split()[:2] for line in shown.stdout.splitlines()] == [
        [name, "up"] for name in ("shared", "s3", "slurm", "ssh", "ray")
    ]


def test_other_ports_are_refused_while_it_runs(stack: Mapping[str, str], stack_state: Path) -> None:
    shown = _command("up", stack_state, "--port", "s3=2345")
    assert shown.returncode == 1
    assert "make down" in shown.stderr


def test_the_s3_server_keeps_conditional_writes(stack: Mapping[str, str]) -> None:
    client = boto3.client("s3")
    client.put_object(Bucket="strandloop", Key="stack/one", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="strandloop", Key="stack/one", Body=b"second", IfNoneMatch="*")
    assert client.get_object(Bucket="strandloop", Key="stack/one")["Body"].read() == b"first"


def test_an_mpi_job_sent_over_ssh_spans_both_nodes(
    stack: Mapping[str, str], stack_state: Path, tmp_path: Path
) -> None:
    ssh = Stack(stack_state).ssh
    log, home = tmp_path / "job.log", Path(stack["STRANDLOOP_SHARED_DIR"]) / "strandloop"
    script = tmp_path / "job.sbatch"
    script.write_text(TWO_NODE_SCRIPT.format(log=log, home=home))

    submitted = ssh.run(f"sbatch --parsable {script}")
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    _await(lambda: "JobState=COMPLETED" in ssh.run(f"scontrol show job {job}").stdout, log=log)

    endpoint = stack["AWS_ENDPOINT_URL"]
    # Nothing else: Open MPI has no complaints about the network or about root.
    assert log.read_text() == f"{[(0, 'n1', endpoint), (1, 'n2', endpoint)]}\n"


def test_a_ray_job_reaches_both_nodes_without_this_checkout(stack: Mapping[str, str]) -> None:
    url = stack["AIRFLOW_CONN_RAY"]
    job = _ask(f"{url}/api/jobs/", {"entrypoint": f"python -c '{RAY_PROGRAM}'"})["submission_id"]
    _await(lambda: _ask(f"{url}/api/jobs/{job}")["status"] in ("SUCCEEDED", "FAILED"))
    logs = _ask(f"{url}/api/jobs/{job}/logs")["logs"]
    assert f"NODES 2 [\"('{stack['AWS_ENDPOINT_URL']}', None)\"]" in logs


def test_nothing_is_open_to_the_network(stack: Mapping[str, str], stack_state: Path) -> None:
    """Ray runs whatever is sent to its ports, so none may listen on an outward address."""
    ports, listening = Stack(stack_state).ports, _listening()
    started_by_default = [name for name in ports.numbers if name not in ("slurmdbd", "moto", "airflow")]
    for name in started_by_default:
        assert listening[ports[name]] <= LOOPBACK, name


def test_a_killed_daemon_is_reported_and_started_again(stack: Mapping[str, str], stack_state: Path) -> None:
    record = Stack(stack_state).processes.record("slurmd-n2")
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    _await(lambda: not Stack(stack_state).processes.alive("slurmd-n2"))

    shown = _command("status", stack_state)
    assert shown.returncode == 1
    assert "not running: slurmd-n2" in shown.stdout

    assert _command("up", stack_state).returncode == 0
    assert _command("status", stack_state).returncode == 0


@pytest.fixture
def slurm_only(tmp_path: Path) -> Iterator[Stack]:
    """A stack that is not up yet and goes down at the end, whose Slurm forgets jobs quickly."""
    stack = Stack(tmp_path / "state", free_ports=True, slurm_site_conf="MinJobAge=2")
    yield stack
    stack.down()
    assert not marked(f"{MARK}={stack.layout.runtime}/", process_table())


def test_accounting_joins_a_cluster_at_work_and_stays(slurm_only: Stack, tmp_path: Path) -> None:
    slurm, go = slurm_only.slurm, tmp_path / "go"
    slurm_only.up(("slurm",))
    job = _submit(slurm_only, f"until [ -e {go} ]; do sleep 0.1; done")
    _await(lambda: "JobState=RUNNING" in slurm.run("scontrol", "show", "job", job).stdout)

    slurm_only.up(("slurm", "accounting"))  # Slurm's daemons start anew, the job goes on
    assert _listening()[slurm_only.ports["slurmdbd"]] <= LOOPBACK
    assert "accounting_storage/slurmdbd" in slurm.run("scontrol", "show", "config").stdout
    assert "JobState=RUNNING" in slurm.run("scontrol", "show", "job", job).stdout
    go.touch()
    _await(lambda: _account(slurm_only, job) == ["COMPLETED|0:0"])
    assert next(part for part in slurm_only.status() if part.name == "accounting").problem is None

    slurm_only.down()
    slurm_only.up(("slurm", "accounting"))
    assert _account(slurm_only, job) == ["COMPLETED|0:0"]


def test_a_wiped_controller_counts_from_1_again_and_accounting_tells_the_jobs_apart(
    slurm_only: Stack,
) -> None:
    slurm_only.up(("slurm", "accounting"))
    assert _submit(slurm_only, "exit 3") == "1"
    _await(lambda: _account(slurm_only, "1") == ["FAILED|3:0"])

    slurm_only.slurm.wipe()

    assert slurm_only.slurm.run("scontrol", "show", "job", "1").returncode != 0
    assert _submit(slurm_only, "true") == "1"
    _await(lambda: _account(slurm_only, "1") == ["FAILED|3:0", "COMPLETED|0:0"])


def test_a_job_over_its_memory_is_ended_and_a_job_that_ended_is_forgotten(slurm_only: Stack) -> None:
    slurm_only.up(("slurm",))
    hold = "exec python3 -c 'import time; held = bytearray(300_000_000); time.sleep(100)'"
    job = _submit(slurm_only, hold, "--mem=50M")
    # Where the stack has no control group, slurmstepd ends the job, and Slurm knows no reason.
    state = "OUT_OF_MEMORY" if MemoryCgroup(slurm_only.layout).available() else "FAILED"
    show = slurm_only.slurm.run
    _await(lambda: f"JobState={state}" in show("scontrol", "show", "job", job).stdout)
    _await(lambda: "Invalid job id" in show("scontrol", "show", "job", job).stderr)


def _submit(stack: Stack, body: str, *options: str) -> str:
    submitted = stack.slurm.run("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={body}")
    assert submitted.returncode == 0, submitted.stderr
    return submitted.stdout.strip()


def _account(stack: Stack, job: str) -> list[str]:
    """What accounting says of all jobs that had this number."""
    command = ("sacct", "-X", "-D", "--noheader", "--parsable2", "--format=state,exitcode", "-j", job)
    return stack.slurm.run(*command).stdout.splitlines()


def _command(name: str, state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.local", name, "--state", str(state), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _listening() -> dict[int, set[str]]:
    """The addresses, as the kernel writes them, that each port is listened on."""
    found: dict[int, set[str]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if line.split()[3] == "0A":
                found.setdefault(int(port, 16), set()).add(address)
    return found


def _ask(url: str, body: dict[str, str] | None = None) -> Any:
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _await(condition: Callable[[], bool], *, log: Path | None = None) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, log.read_text() if log is not None and log.exists() else "no log"
        time.sleep(0.2)
