from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from strandloop.errors import InvalidJob
from strandloop.links.slurm import SlurmJobLink
from strandloop.operators.slurm import RESOURCES, SlurmJobOperator


def operator(**arguments: Any) -> SlurmJobOperator:
    return SlurmJobOperator(task_id="similarity", **{"job_root": "/fsx/jobs", "body": "true", **arguments})


def test_resources_become_options_of_sbatch() -> None:
    task = operator(
        partition="compute", nodes=2, ntasks_per_node=4, cpus_per_task=1, mem="4G", time="01:00:00",
        gres="gpu:1", constraint="efa", dependency="afterok:3", signal="B:USR1@60", comment="two words",
        requeue=False,
    )  # fmt: skip
    assert task.options() == [
        "--partition=compute", "--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=1", "--mem=4G",
        "--time=01:00:00", "--gres=gpu:1", "--constraint=efa", "--dependency=afterok:3",
        "--signal=B:USR1@60", "--comment=two words", "--no-requeue",
    ]  # fmt: skip


def test_what_is_not_given_is_left_to_the_script_and_the_cluster() -> None:
    assert operator(partition="").options() == []


def test_every_templated_field_is_rendered() -> None:
    with DAG("d", schedule=None):
        task = operator(
            body="echo {{ who }}",
            script_args=["{{ who }}", "--k={{ k }}"],
            ssh_conn_id="slurm_{{ who }}",
            job_root="/fsx/{{ who }}",
            environment={"WHO": "{{ who }}"},
            **dict.fromkeys(RESOURCES, "{{ who }}"),
        )
    task.render_template_fields({"who": "x", "k": 10})  # type: ignore[typeddict-unknown-key,typeddict-item]
    assert (task.body, task.script_args, task.ssh_conn_id) == ("echo x", ["x", "--k=10"], "slurm_x")
    assert (task.job_root, task.environment) == ("/fsx/x", {"WHO": "x"})
    assert {getattr(task, name) for name in RESOURCES} == {"x"}
    assert set(task.template_fields) >= {"script", *RESOURCES}


def test_one_of_script_and_body_is_needed() -> None:
    for arguments in ({"body": None}, {"script": "/x.sbatch"}):
        with pytest.raises(ValueError, match="either script or body"):
            operator(**arguments)


def test_a_script_is_read_from_an_absolute_path(tmp_path: Path) -> None:
    path = tmp_path / "x.sbatch"
    path.write_text("echo x\n")
    assert operator(body=None, script=str(path)).script_text() == "echo x\n"
    for wrong, words in (("x.sbatch", "absolute"), (f"{path}.not", "cannot be read")):
        with pytest.raises(InvalidJob, match=words):
            operator(body=None, script=wrong).script_text()


def test_has_a_link_to_the_log() -> None:
    (link,) = operator().operator_extra_links
    assert isinstance(link, SlurmJobLink) and link.name == "Slurm job log"
