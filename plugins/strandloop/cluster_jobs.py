"""What goes on in a Slurm cluster as a whole: whether it can take jobs, and whose jobs it has."""

from __future__ import annotations

from dataclasses import dataclass

from strandloop import slurm_answers, slurm_commands
from strandloop.completed import Completed
from strandloop.errors import ConnectionBroken
from strandloop.hooks.slurm import SlurmHook
from strandloop.run_tag import RunTag


@dataclass(frozen=True)
class ClusterJob:
    """A job that waits or runs.

    :param run: the DAG run that has submitted it; None for somebody else's.
    """

    id: str
    state: str
    user: str
    run: RunTag | None

    def __str__(self) -> str:
        return f"job {self.id} ({self.state}, {self.run or f'of user {self.user}'})"


def usable_nodes(hook: SlurmHook, where: str) -> tuple[str, list[str]]:
    """Return the cluster's own name, and the nodes that can run jobs.

    :param where: the cluster in words, for errors.
    :raises ConnectionBroken: if Slurm does not answer, or has no such node.
    """
    config, sinfo = (
        _answered(hook, command, where) for command in (slurm_commands.controller(), slurm_commands.nodes())
    )
    nodes = slurm_answers.parse_nodes(sinfo.stdout.decode("utf-8", "replace"))
    usable = sorted(name for name, node in nodes.items() if node.usable)
    if not usable:
        states = ", ".join(f"{name} is {node.state}" for name, node in sorted(nodes.items())) or "no nodes"
        raise ConnectionBroken(
            f"{where}: no node can run a job ({states}). Look at 'sinfo --list-reasons' on the login node"
        )
    return slurm_answers.cluster_name(config.stdout.decode("utf-8", "replace")), usable


def living_jobs(hook: SlurmHook, where: str) -> list[ClusterJob]:
    """Return all jobs that wait or run, whoever has submitted them; of an array each element.

    :raises ConnectionBroken: if Slurm does not answer.
    """
    rows = _answered(hook, slurm_commands.all_jobs(), where).stdout.decode("utf-8", "replace").splitlines()
    parts = (row.strip().split("|", 3) for row in rows)
    return [
        ClusterJob(part[0], part[1], part[2], RunTag.of_comment(part[3])) for part in parts if len(part) == 4
    ]


def _answered(hook: SlurmHook, command: slurm_commands.Command, where: str) -> Completed:
    answer = hook.run(command)
    if answer.rc != 0:
        raise ConnectionBroken(f"{where}: Slurm does not answer (exit status {answer.rc}): {answer.text}")
    return answer
