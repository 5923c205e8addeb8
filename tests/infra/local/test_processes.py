import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.local.layout import StackError
from infra.local.process_table import find_process
from infra.local.processes import Processes

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
# Starts a child in a session of its own, prints its id, and waits.
WITH_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("no", flush=True))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    (tmp_path / "run").mkdir()
    (tmp_path / "logs").mkdir()
    processes = Processes(records=tmp_path / "run", logs=tmp_path / "logs", mark=str(tmp_path))
    yield processes
    processes.end()


def test_a_process_is_known_by_its_record_until_it_is_ended(processes: Processes) -> None:
    processes.start("sleeper", SLEEP, env={})
    assert processes.alive("sleeper")
    assert processes.recorded() == ["sleeper"]

    assert processes.end() == 1

    assert not processes.alive("sleeper")
    assert processes.recorded() == []


def test_a_later_process_with_a_recorded_id_is_not_ours(processes: Processes, tmp_path: Path) -> None:
    processes.start("sleeper", SLEEP, env={})
    stranger = subprocess.Popen(SLEEP)
    try:
        path = tmp_path / "run" / "sleeper.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"pid": stranger.pid, "started": record["started"] - 1}))
        assert not processes.alive("sleeper")
        assert processes.end() == 1  # the sleeper itself, found by its mark
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_children_in_sessions_of_their_own_end_too(processes: Processes) -> None:
    processes.start("parent", [sys.executable, "-c", WITH_CHILD], env={})
    child = int(_await(lambda: processes.log("parent").read_text().strip()))
    assert processes.end() == 2
    assert find_process(child) is None


def test_the_orphans_of_a_killed_process_end_with_its_name(processes: Processes) -> None:
    processes.start("parent", [sys.executable, "-c", WITH_CHILD], env={})
    processes.start("other", SLEEP, env={})
    child = int(_await(lambda: processes.log("parent").read_text().strip()))
    processes.kill("parent")
    assert find_process(child) is not None

    processes.end("parent")

    assert find_process(child) is None
    assert processes.alive("other")


def test_a_killed_process_leaves_its_children_and_its_record(processes: Processes) -> None:
    processes.start("parent", [sys.executable, "-c", WITH_CHILD], env={})
    child = int(_await(lambda: processes.log("parent").read_text().strip()))

    processes.kill("parent")

    assert not processes.alive("parent")
    assert processes.recorded() == ["parent"]
    assert find_process(child) is not None
    processes.kill("parent")  # once more does no harm


def test_what_ignores_a_request_to_end_is_killed(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.local.processes.PATIENCE_S", (0.2, 0.2, 5.0))
    processes.start("stubborn", [sys.executable, "-c", STUBBORN], env={})
    _await(lambda: processes.log("stubborn").read_text())
    processes.end()
    assert not processes.recorded()
    assert "no" in processes.log("stubborn").read_text()


def test_waiting_shows_the_log_of_a_process_that_ended_early(processes: Processes) -> None:
    processes.start(
        "broken", [sys.executable, "-c", "import time; time.sleep(0.2); print('no licence')"], env={}
    )
    with pytest.raises(StackError, match=r"(?s)broken ended early.*no licence"):
        processes.wait_until(lambda: "no answer", what="the service", watch=("broken",), timeout_s=20)


def test_waiting_ends_with_the_last_answer(processes: Processes) -> None:
    with pytest.raises(StackError, match="one node missing"):
        processes.wait_until(lambda: "one node missing", what="the service", watch=(), timeout_s=0.1)


def _await(condition: Callable[[], object]) -> str:
    deadline = time.monotonic() + 10
    while not (answer := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return str(answer)
