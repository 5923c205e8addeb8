"""``make run`` and ``make airflow``: the daily batch on the local stack, start to end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping
from pathlib import Path

SAMPLE_BATCH = "sample"
TASK_STARTS = re.compile(r"\[DAG TEST\] starting task_id=(\w+)")
TAIL_LINES = 40
AIRFLOW_START_SECONDS = 300
AIRFLOW_END_SECONDS = 10


def run(environment: Mapping[str, str], *, samples: Path, logs: Path, report: Path) -> int:
    """Land the sample reads, run both DAGs with ``airflow dags test``, print the summary; gives the exit code.

    :param environment: the stack's environment, as ``python -m infra.local environment`` prints it.
    :param samples: a folder with one folder of FASTQ files for each sample.
    :param logs: where the whole output of each step goes, and ``seconds.json``.
    :param report: where the batch's report is copied to, for a browser.
    """
    reads = sorted(str(path) for path in samples.glob("*/*.fq.gz"))
    if not reads:
        print(f"error: there are no sample reads in {samples}; run: make setup", file=sys.stderr)
        return 1
    where = ["--data-uri", environment["STRANDLOOP_DATA_URI"], "--batch-id", SAMPLE_BATCH]
    conf = json.dumps({"batch_id": SAMPLE_BATCH})
    python, airflow = sys.executable, str(Path(sys.executable).with_name("airflow"))
    logs.mkdir(parents=True, exist_ok=True)
    steps = {
        "land": [python, "-m", "tasks.landing", "put", *where, *reads],
        "prepare_airflow": [airflow, "db", "migrate"],
        "genomics_batch": [airflow, "dags", "test", "genomics_batch", "--conf", conf],
        "encoder_retraining": [airflow, "dags", "test", "encoder_retraining", "--conf", conf],
    }
    seconds: dict[str, float] = {}
    for name, command in steps.items():
        started = time.monotonic()
        if not _step(name, command, environment=environment, log=logs / f"{name}.log"):
            return 1
        seconds[name] = round(time.monotonic() - started, 1)
    (logs / "seconds.json").write_text(json.dumps(seconds, indent=2) + "\n")
    print(f"== all done in {sum(seconds.values()):.0f} s; logs are in {logs}\n", flush=True)
    summary = [python, "-m", "tasks.summary", *where, "--save-report", str(report)]
    return subprocess.run(summary, env={**os.environ, **environment}).returncode


def _step(name: str, command: list[str], *, environment: Mapping[str, str], log: Path) -> bool:
    """Run one command with its output in ``log``; shows each task that starts, and the end of it on failure."""
    print(f"== {name}", flush=True)
    started = time.monotonic()
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with (
        log.open("w") as target,
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            target.write(line)
            tail.append(line)
            if begins := TASK_STARTS.search(line):
                print(f"   {time.monotonic() - started:6.1f} s  {begins[1]}", flush=True)
    print(
        f"   {time.monotonic() - started:6.1f} s  {'done' if process.returncode == 0 else 'FAILED'}",
        flush=True,
    )
    if process.returncode != 0:
        sys.stderr.writelines(tail)
        print(f"error: {name} failed (exit {process.returncode}); all of its output: {log}", file=sys.stderr)
    return process.returncode == 0


def airflow(environment: Mapping[str, str]) -> int:
    """Run ``airflow standalone`` on the stack until interrupted; URL, user and password are printed."""
    programs = Path(sys.executable).parent
    # standalone starts its components by the name `airflow`, from PATH.
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    command = [str(programs / "airflow"), "standalone"]
    # A session of its own: an interrupt comes to us alone, and all of Airflow is ended together.
    process = subprocess.Popen(
        command, env={**os.environ, **environment, "PATH": path}, start_new_session=True
    )
    try:
        url = f"http://127.0.0.1:{environment['AIRFLOW__API__PORT']}"
        _await_answer(f"{url}/api/v2/version", process)
        passwords = Path(environment["AIRFLOW_HOME"]) / "simple_auth_manager_passwords.json.generated"
        for user, password in json.loads(passwords.read_text()).items():
            print(f"\nAirflow is at {url}   user: {user}   password: {password}\n", flush=True)
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process's whole group: asked first, then, as some components wait for each other, by force."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(AIRFLOW_END_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _await_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + AIRFLOW_START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"error: airflow standalone ended with exit code {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)  # between two questions, not instead of one
    raise SystemExit(f"error: {url} did not answer within {AIRFLOW_START_SECONDS} s")
