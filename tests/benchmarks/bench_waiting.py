"""What waiting Slurm tasks cost: ``make bench-waiting``, on a Slurm and an sshd of its own.

So many real triggers wait in one event loop, as in the triggerer, at the default poll interval: once over the
connections that they share, once with a connection each, the obvious way. Both meet sshd's default limits.
The jobs are real: most wait in the queue; in the round of the shared connections some run and end meanwhile.
Each round is a process of its own, so that its memory and its event loop can be measured. In between, the
same waits are put before a real ``airflow triggerer``, whose memory is measured as well.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import asyncssh

from infra.local.environment import read_environment
from infra.local.part import SYSTEM_PATH, required_program
from infra.local.stack import Stack
from strandloop.completed import Completed
from strandloop.errors import ConnectionBroken
from strandloop.hooks.slurm import AsyncSlurmHook
from strandloop.job_record import JobRecord, utc_now
from strandloop.local_commands import run_here
from strandloop.slurm_commands import Command, release, submit
from strandloop.slurm_script import batch_script
from strandloop.slurm_watch import WatchPlan
from strandloop.ssh_login import SshLogin
from strandloop.triggers import slurm as triggers
from tests.benchmarks.bench_daily_run import ROOT, cpu_model
from tests.benchmarks.triggerer_memory import triggerer_memory

RESULT = ROOT / ".local" / "bench" / "waiting.json"
POLL_SECONDS = 15.0
#: Rates are counted once every wait has looked at its job a first time.
SETTLING_SECONDS = 20.0
#: What a wait asks of slurmctld, by sdiag's names.
REQUESTS = re.compile(r"(REQUEST_JOB_INFO\w*|REQUEST_BUILD_INFO)\s.*count:(\d+)")
#: What sshd's log says at the level VERBOSE.
SSHD = {
    "connections_opened": "Accepted publickey",
    "connections_refused": "past MaxStartups",
    "sessions_refused": "no more sessions",
}


class OwnConnection:
    """The rival: one connection for each wait, kept open, opened again at the next poll if it broke."""

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._connection: asyncssh.SSHClientConnection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._connection is not None:
            self._connection.abort()
            await self._connection.wait_closed()

    async def run(self, command: Command) -> Completed:
        try:
            async with asyncio.timeout(120):
                if self._connection is None:
                    options = (await SshLogin.read(self._conn_id)).options()
                    self._connection = await asyncssh.connect(**options, connect_timeout=30, login_timeout=30)
                line, stdin = shlex.join(command.args), command.stdin
                done = await self._connection.run(line, input=stdin, encoding=None)
        except (asyncssh.Error, OSError, TimeoutError) as error:
            self._connection = None
            raise ConnectionBroken(str(error) or type(error).__name__) from error
        return Completed(done.exit_status or 0, bytes(done.stdout or b""), bytes(done.stderr or b""))  # type: ignore[arg-type]


@dataclass
class Polls:
    """Every command that the waits of this process ran: when it began, its seconds, whether it was answered.

    :param first: when a wait, by the id of its hook, had its first answer.
    """

    began: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    first: dict[int, float] = field(default_factory=dict)
    unanswered: int = 0

    def timed(self, hook: type[Any]) -> type[Any]:
        """The same hook with a clock."""
        polls = self

        class Timed(hook):  # type: ignore[misc]
            async def run(self, command: Command) -> Completed:
                began = time.monotonic()
                try:
                    completed: Completed = await super().run(command)
                except ConnectionBroken:
                    polls.unanswered += 1
                    raise
                polls.began.append(began)
                polls.seconds.append(time.monotonic() - began)
                polls.first.setdefault(id(self), time.monotonic())
                return completed

        return Timed


@dataclass
class Loop:
    """What is watched while the waits go on: how late the loop is, and how many connections are open."""

    port: int
    longest_stall: float = 0.0
    most_connections: int = 0

    async def beat(self, pause: float = 0.01) -> None:
        while True:
            due = time.monotonic() + pause
            await asyncio.sleep(pause)
            self.longest_stall = max(self.longest_stall, time.monotonic() - due)

    async def count(self) -> None:
        while True:
            self.most_connections = max(self.most_connections, await asyncio.to_thread(self.connections))
            await asyncio.sleep(0.5)

    def connections(self) -> int:
        """Established TCP connections to sshd's port on this machine."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(int(row[2].partition(":")[2], 16) == self.port and row[3] == "01" for row in rows)


async def one_round(name: str, plans: list[WatchPlan], running: list[str], seconds: float) -> dict[str, Any]:
    """Let all of them wait; in the end ``running`` are released and waited for."""
    polls, loop = Polls(), Loop(json.loads(os.environ["AIRFLOW_CONN_SLURM"])["port"])
    hook = AsyncSlurmHook if name == "shared" else OwnConnection
    triggers.AsyncSlurmHook = polls.timed(hook)  # type: ignore[misc]
    events: dict[str, tuple[float, float]] = {}  # by both clocks

    async def wait(plan: WatchPlan) -> None:
        async for event in triggers.SlurmJobTrigger("slurm", **plan.to_kwargs()).run():
            assert event.payload["state"] == "SUCCEEDED", event
            events[plan.record["id"]] = time.monotonic(), time.time()

    await asyncio.to_thread(run_here, Command(("true",)))
    gc.collect()
    before = resident_bytes()
    watching = [asyncio.create_task(loop.beat()), asyncio.create_task(loop.count())]
    started = time.monotonic()
    waits = [asyncio.create_task(wait(plan)) for plan in plans]
    await asyncio.sleep(SETTLING_SECONDS)
    requests, since = await asyncio.to_thread(requests_so_far), time.monotonic()
    unanswered_since, stall_at_start, loop.longest_stall = polls.unanswered, loop.longest_stall, 0.0
    if running:
        await asyncio.to_thread(run_here, release(",".join(running)))
    await asyncio.sleep(seconds)
    requests, now = await asyncio.to_thread(requests_so_far) - requests, time.monotonic()
    minutes = (now - since) / 60
    wait_minutes = (len(plans) * (now - since) - sum(now - at for at, _ in events.values())) / 60
    commands = sum(since <= began < now for began in polls.began)
    while len(events) < len(running) and time.monotonic() - since < 180:
        await asyncio.sleep(0.1)
    resident = resident_bytes()
    open_connections = loop.connections()
    for task in [*waits, *watching]:
        task.cancel()
    ended = await asyncio.gather(*waits, *watching, return_exceptions=True)
    for failure in (each for each in ended if isinstance(each, Exception)):
        raise failure
    assert len(events) == len(running), f"{len(running)} jobs ran, {len(events)} events came"
    lateness = [events[plan.record["id"]][1] - end_of(plan) for plan in plans if plan.record["id"] in events]
    return {
        "connections_open_at_most": loop.most_connections,
        "connections_open_at_the_end": open_connections,
        "commands_per_minute": round(commands / minutes, 1),
        "commands_per_minute_per_wait": round(commands / wait_minutes, 2),
        "slurm_requests_per_minute": round(requests / minutes, 1),
        "slurm_requests_per_minute_per_wait": round(requests / wait_minutes, 2),
        "commands_unanswered": polls.unanswered,
        "commands_unanswered_after_settling": polls.unanswered - unanswered_since,
        "waits_that_had_an_answer": len(polls.first),
        "seconds_until_the_last_of_them_had": round(max(polls.first.values()) - started, 1),
        "seconds_per_command": spread(polls.seconds),
        "resident_mib_before": round(before / 2**20, 1),
        "resident_mib_with_all_waits": round(resident / 2**20, 1),
        "resident_kib_per_wait": round((resident - before) / 2**10 / len(plans), 1),
        "longest_loop_stall_at_start_seconds": round(stall_at_start, 3),
        "longest_loop_stall_later_seconds": round(loop.longest_stall, 3),
        **({"seconds_from_job_end_to_event": spread(lateness)} if lateness else {}),
    }


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def requests_so_far() -> int:
    """Requests for jobs and for the configuration that slurmctld has answered, by sdiag."""
    answer = run_here(Command(("sdiag",)))
    assert answer.rc == 0, answer.text
    return sum(int(count) for _, count in REQUESTS.findall(answer.text))


def end_of(plan: WatchPlan) -> float:
    """When a job's script ended, as its exit file says; seconds since the epoch."""
    report = json.loads(Path(plan.record["job_dir"], "exit.json").read_text())
    return datetime.fromisoformat(report["ended_at"]).timestamp()


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, worst and number."""
    return {
        "median": round(statistics.median(seconds), 3),
        "worst": round(max(seconds), 3),
        "number": len(seconds),
    }


def submit_held(folder: Path, number: int) -> JobRecord:
    """Submit one job as the operator does; it is not released."""
    job_dir, name = folder / str(number), f"bench-{number}"
    job_dir.mkdir(parents=True)
    (job_dir / "script.sbatch").write_text("sleep 2\n")
    text = batch_script("", job_dir=str(job_dir))
    done = run_here(submit(text, job_dir=str(job_dir), name=name, options=["--requeue"]))
    assert done.rc == 0, done.text
    job_id = done.stdout.decode().strip()
    return JobRecord("slurm", job_id, name, "PENDING", utc_now(), 1, job_dir=str(job_dir))


def talkative_sshd(stack: Stack) -> None:
    """Start sshd again with a log that names what it refuses."""
    stack.processes.end("sshd")
    config = stack.layout.state / "ssh" / "sshd_config"
    config.write_text(config.read_text() + "LogLevel VERBOSE\n")
    command = [required_program("sshd"), "-D", "-e", "-f", str(config)]
    stack.processes.start("sshd", command, env={"PATH": SYSTEM_PATH})
    stack.processes.wait_until(stack.ssh.problem, what="sshd", watch=("sshd",), timeout_s=30)


def measure(options: argparse.Namespace, state: Path) -> dict[str, Any]:
    """Bring Slurm and sshd up, and let each round be a process."""
    stack = Stack(state, free_ports=True)
    try:
        stack.up(("shared", "slurm", "ssh"))
        talkative_sshd(stack)
        environment = {**os.environ, **read_environment(stack.layout)}
        environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'plugins'}"
        os.environ["SLURM_CONF"] = environment["SLURM_CONF"]
        records = [submit_held(stack.layout.shared / "jobs", number) for number in range(options.waits)]
        jobs = state / "jobs.json"
        jobs.write_text(json.dumps([record.to_xcom() for record in records]))
        log = stack.layout.logs / "sshd.log"

        def one(name: str, ending: int) -> dict[str, Any]:
            said = log.stat().st_size
            command = [sys.executable, "-m", "tests.benchmarks.bench_waiting", "--round", name]
            command += ["--jobs", str(jobs), "--ending", str(ending), "--seconds", str(options.seconds)]
            done = subprocess.run(
                command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=300
            )
            text = log.read_bytes()[said:].decode("utf-8", "replace")
            counts = {what: text.count(words) for what, words in SSHD.items()}
            return counts | json.loads(done.stdout.splitlines()[-1])

        return {
            "versions": versions(),
            "own": one("own", 0),
            "triggerer": triggerer_memory(
                environment, state=state, jobs=jobs, waits=options.waits, poll_seconds=POLL_SECONDS
            ),
            "shared": one("shared", options.ending),
        }
    finally:
        stack.down()


def versions() -> dict[str, str]:
    """Of what takes part; Slurm's programs want its configuration for that."""
    packages, commands = ("apache-airflow", "asyncssh"), {"slurm": ["sbatch", "-V"], "openssh": ["ssh", "-V"]}
    said = {
        name: subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
        for name, command in commands.items()
    }
    return {
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
        **{name: done.stdout.strip() for name, done in said.items()},
    }


def table(rounds: dict[str, dict[str, Any]]) -> str:
    """Both rounds side by side, and the triggerer."""
    shared, own = rounds["shared"], rounds["own"]
    lines = [f"{'':42} {'shared':>22} {'one each':>22}"]
    for what, value in shared.items():
        texts = [_text(value), _text(own.get(what, "-"))]
        lines.append(f"{what.replace('_', ' '):42} {texts[0]:>22} {texts[1]:>22}")
    lines += ["", "airflow triggerer"]
    lines += [f"{what.replace('_', ' '):42} {value!s:>22}" for what, value in rounds["triggerer"].items()]
    return "\n".join(lines)


def _text(value: Any) -> str:
    return f"{value['median']} / {value['worst']}" if isinstance(value, dict) else str(value)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure what waiting Slurm tasks cost.")
    parser.add_argument("--waits", type=int, default=200)
    parser.add_argument("--ending", type=int, default=30, help="jobs that run and end meanwhile")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each round, once it has settled")
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--round", choices=("shared", "own"), help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.round:
        records = json.loads(options.jobs.read_text())
        plans = [WatchPlan(record, "bench", poll_interval_seconds=POLL_SECONDS) for record in records]
        running = [record["id"] for record in records[: options.ending]]
        print(json.dumps(asyncio.run(one_round(options.round, plans, running, options.seconds))))
        return
    with tempfile.TemporaryDirectory(prefix="bench-waiting-") as state:
        rounds = measure(options, Path(state))
    result = {
        "measured_on": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "load_average": [round(load, 2) for load in os.getloadavg()],
        },
        "versions": rounds.pop("versions"),
        "inputs": {"waits": options.waits, "ending": options.ending, "poll_seconds": POLL_SECONDS},
        "rounds": rounds,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(table(rounds))
    print(f"written to {options.json}")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
