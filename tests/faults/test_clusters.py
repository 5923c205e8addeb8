"""A cluster is made once while what makes it is killed; ParallelCluster is played, the head node is real."""

from __future__ import annotations

import pytest

from strandloop.ssh_address import SshAddress
from tests.faults.conditions import until
from tests.faults.world import World
from tests.plugins.strandloop.played_pcluster import ACCEPTED, NOT_FOUND, event, events

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.mark.parametrize("world", ["Slurm"], indirect=True)
def test_worker_and_triggerer_are_killed_while_a_cluster_is_made(world: World) -> None:
    pcluster = world.pcluster
    pcluster.configuration = "Region: us-east-1\n"
    pcluster.answers("describe_cluster", NOT_FOUND, pcluster.described("CREATE_IN_PROGRESS"))
    pcluster.answers("create_cluster", ACCEPTED)
    pcluster.answers("get_cluster_stack_events", events(event(1, "c", "CREATE_IN_PROGRESS")))
    hold = pcluster.folder / "create_cluster.hold"
    hold.touch()
    run = world.airflow.trigger("cluster_retried", body=pcluster.configuration)
    until((pcluster.folder / "create_cluster.held").exists, what="the cluster is being ordered")
    run.kill_worker()
    hold.unlink()  # the order goes through, and nobody is there to hear it
    until(
        lambda: "c (AWS::CloudFormation::Stack) CREATE_IN_PROGRESS" in run.log(),
        what="the trigger follows it",
    )

    world.airflow.kill_all_of("triggerer")
    before = len(pcluster.asked("describe_cluster"))
    world.airflow.start("triggerer")
    until(lambda: len(pcluster.asked("describe_cluster")) > before, what="the next triggerer follows it")
    pcluster.answers("describe_cluster", pcluster.described("CREATE_COMPLETE"))
    assert run.end() == "success", run.log()
    assert pcluster.changes == ["create_cluster"]
    result = run.xcom("return_value")
    assert SshAddress.parse(result["ssh_conn_id"]).host == result["head_node"] == "127.0.0.1"
    assert result["nodes"] >= 1
