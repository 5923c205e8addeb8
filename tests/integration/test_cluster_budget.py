"""The budget of a cluster, as its configuration tells it to Slurm, in a real Slurm with accounts."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from infra.local.slurm_conf import NODES
from infra.local.stack import Stack
from tests.tasks.cluster_examples import ACCOUNTING, rendered

pytestmark = pytest.mark.integration

BUDGET_SCRIPT = Path(__file__).parents[2] / "infra" / "parallelcluster" / "slurm_budget.sh"


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Stack]:
    """Slurm and accounts, with the settings of the example; its one queue, ``gpu``, has the local nodes."""
    scheduling = yaml.safe_load(rendered(ACCOUNTING))["Scheduling"]
    (queue,) = [queue for queue in scheduling["SlurmQueues"] if queue["Name"] == "gpu"]
    settings = [_line(setting) for setting in scheduling["SlurmSettings"]["CustomSlurmSettings"]]
    partition = f"PartitionName=gpu Nodes={','.join(NODES)} " + _line(queue["CustomSlurmSettings"])
    stack = Stack(tmp_path, free_ports=True, slurm_site_conf="\n".join([*settings, partition]))
    try:
        stack.up(("slurm", "accounting"))
        yield stack
    finally:
        stack.down()


def test_slurm_starts_nothing_beyond_the_budget(slurm: Stack) -> None:
    too_long = slurm.slurm.run("sbatch", "--partition=gpu", "--time=6:01:00", "--wrap=true")
    assert too_long.returncode != 0
    assert "time limit" in too_long.stderr

    _budget(slurm, "1")  # a minute of a node that costs a hundredth of a cent an hour
    first = _submit(slurm, "sleep 1.5")
    _await(slurm, first, "JobState=COMPLETED")
    shown = slurm.slurm.run("scontrol", "show", "job", first).stdout
    assert re.search(r"\bbilling=12120\b", shown), shown

    second = _submit(slurm, "true")
    _await(slurm, second, "Reason=QOSGrpBillingMinutes")

    _budget(slurm, "300000000")
    _await(slurm, second, "JobState=COMPLETED")


def test_a_budget_must_be_a_number() -> None:
    refused = subprocess.run([BUDGET_SCRIPT, "12 Flags="], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (64, "usage: slurm_budget.sh BILLING_MINUTES\n")


def _line(settings: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _budget(stack: Stack, billing_minutes: str) -> None:
    env = os.environ | {"SLURM_BIN": "/usr/bin", "SLURM_CONF": str(stack.slurm.config)}
    subprocess.run([BUDGET_SCRIPT, billing_minutes], env=env, check=True)


def _submit(stack: Stack, body: str) -> str:
    submitted = stack.slurm.run(
        "sbatch", "--parsable", "--partition=gpu", "--output=/dev/null", f"--wrap={body}"
    )
    assert submitted.returncode == 0, submitted.stderr
    return submitted.stdout.strip()


def _await(stack: Stack, job: str, words: str) -> None:
    deadline = time.monotonic() + 60
    while words not in (shown := stack.slurm.run("scontrol", "show", "job", job).stdout):
        assert time.monotonic() < deadline, f"never {words}:\n{shown}"
        time.sleep(0.2)
