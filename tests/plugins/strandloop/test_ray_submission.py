from __future__ import annotations

import subprocess
from types import SimpleNamespace

from strandloop.ray_submission import GUARD, submission_body

TI = SimpleNamespace(dag_id="daily", task_id="embed", run_id="run-1", map_index=-1, try_number=2)


def body(entrypoint: list[str] | str, **reserved: object) -> dict:
    return submission_body(
        "id-1",
        entrypoint,
        identity="id",
        ti=TI,
        runtime_env={"env_vars": {"A": "1"}},
        metadata={"batch": "b7"},
        reserved=reserved,
    )


def test_it_names_the_task_and_says_what_is_reserved() -> None:
    assert body(["python", "-c", "print('a b')"], entrypoint_num_cpus=1, entrypoint_num_gpus=None) == {
        "submission_id": "id-1",
        "entrypoint": GUARD + "python -c 'print('\"'\"'a b'\"'\"')'",
        "runtime_env": {"env_vars": {"A": "1"}},
        "metadata": {
            "job_name": "daily.embed",
            "identity": "id",
            "run_id": "run-1",
            "map_index": "-1",
            "try_number": "2",
            "batch": "b7",
        },
        "entrypoint_num_cpus": 1,
    }


def test_the_guard_changes_neither_what_runs_nor_its_exit_code() -> None:
    for entrypoint, code, output in (("false || echo a; exit 4", 4, "a\n"), (["sh", "-c", "exit 3"], 3, "")):
        done = subprocess.run(["sh", "-c", body(entrypoint)["entrypoint"]], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (code, output)
