"""The life of a cluster, seen through a process boundary with recorded answers."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from strandloop.errors import ConnectionBroken, InvalidJob
from strandloop.hooks.parallel_cluster import ParallelClusterHook, describe
from strandloop.hooks.slurm import AsyncSlurmHook, SlurmHook
from strandloop.operators.parallel_cluster import (
    EnsureClusterOperator,
    ParallelClusterCreateOrUpdateOperator,
    ParallelClusterDeleteOperator,
    ReleaseClusterOperator,
)
from strandloop.pcluster import BadConfiguration, LimitReached, Throttled
from strandloop.pcluster_state import (
    ClusterBusy,
    ClusterFailed,
    ClusterUnclear,
    configuration_hash,
    read_configuration,
)
from strandloop.run_tag import RunTag
from strandloop.sensors.parallel_cluster import ParallelClusterSensor
from strandloop.slurm_commands import Command
from strandloop.ssh_address import SshAddress
from tests.plugins.strandloop.played_pcluster import (
    ACCEPTED,
    NOT_FOUND,
    PlayedPcluster,
    error,
    event,
    events,
    played_pcluster,
)
from tests.plugins.strandloop.ssh_server import PlayedServer, ssh_server

WANTED = "Region: us-east-1\nHeadNode: {InstanceType: m7i.xlarge}\nScheduling: {Scheduler: slurm}\n"
OTHER = WANTED.replace("m7i.xlarge", "m7i.2xlarge")
BEGUN = event(1, "c", "CREATE_IN_PROGRESS", "User Initiated")
UPDATE_BEGUN = event(11, "c", "UPDATE_IN_PROGRESS", "User Initiated")
STOP_THE_FLEET = (
    "All compute nodes must be stopped. Stop the compute fleet with the pcluster update-compute-fleet command"
)


@dataclass
class TaskInstance:
    """What the operators use of one."""

    dag_id: str = "genomics_batch"
    run_id: str = "manual__1"
    pushed: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, *, key: str, value: Any) -> None:
        self.pushed[key] = value


OURS = RunTag("genomics_batch", "manual__1")


@pytest.fixture(scope="module")
def server() -> Iterator[PlayedServer]:
    with ssh_server() as server:
        yield server


@pytest.fixture
def pcluster(
    server: PlayedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PlayedPcluster]:
    """A played ParallelCluster that knows no cluster yet."""
    with played_pcluster(tmp_path, server.connection) as (played, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        played.configuration = WANTED
        for operation in ("create_cluster", "update_cluster", "delete_cluster", "update_compute_fleet"):
            played.answers(operation, ACCEPTED)
        played.answers("get_cluster_stack_events", events(BEGUN))
        yield played


def create(*, deferrable: bool = False, **more: Any) -> ParallelClusterCreateOrUpdateOperator:
    settings = {
        "cluster_name": "c",
        "ssh_conn_id": "cluster_key",
        "configuration": WANTED,
        "poll_interval_seconds": 0.01,
        "unanswered_timeout_seconds": 0.0,
        **more,
    }
    return ParallelClusterCreateOrUpdateOperator(task_id="ensure", deferrable=deferrable, **settings)


def delete(*, deferrable: bool = False, **more: Any) -> ParallelClusterDeleteOperator:
    settings = {"cluster_name": "c", "ssh_conn_id": "cluster_key", "poll_interval_seconds": 0.01, **more}
    return ParallelClusterDeleteOperator(task_id="release", deferrable=deferrable, **settings)


def run(task: Any, ti: TaskInstance | None = None) -> Any:
    """Run a task to its end as Airflow does, its deferrals through triggers made anew from their arguments."""
    context: Any = {"ti": ti or TaskInstance()}
    work, event = task.execute, None
    while True:
        try:
            return work(context) if event is None else work(context, event)
        except TaskDeferred as deferral:
            _, kwargs = deferral.trigger.serialize()
            trigger = type(deferral.trigger)(**json.loads(json.dumps(kwargs)))
            event = json.loads(json.dumps(asyncio.run(fired(trigger))))
            work = getattr(task, deferral.method_name)


async def fired(trigger: Any) -> dict[str, Any]:
    (event,) = [event.payload async for event in trigger.run()]
    return event


BOTH = pytest.mark.parametrize("deferrable", [False, True])


@BOTH
def test_a_cluster_is_created_and_its_head_node_reached(
    pcluster: PlayedPcluster, deferrable: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    moving, done = pcluster.described("CREATE_IN_PROGRESS"), pcluster.described("CREATE_COMPLETE")
    starting = pcluster.described("CREATE_COMPLETE", "STARTING")
    pcluster.answers("describe_cluster", NOT_FOUND, moving, moving, starting, done)
    head = event(2, "HeadNode", "CREATE_COMPLETE")
    pcluster.answers("get_cluster_stack_events", events(BEGUN, head))
    ti = TaskInstance()
    result = run(create(deferrable=deferrable), ti)
    assert pcluster.changes == ["create_cluster"]
    (asked,) = pcluster.asked("create_cluster")
    assert asked["arguments"]["cluster_configuration"] == WANTED
    said = capsys.readouterr().out
    assert said.count("HeadNode (AWS::EC2::Instance) CREATE_COMPLETE") == 1
    assert said.count("c (AWS::CloudFormation::Stack) CREATE_IN_PROGRESS: User Initiated") == 1
    assert result["cluster_uid"].startswith("arn:aws:cloudformation:us-east-1:123456789012:stack/c/")
    assert (result["head_node"], result["cluster_name"], result["nodes"]) == ("127.0.0.1", "c", 1)
    assert len(result["configuration_hash"]) == 64
    with SlurmHook(result["ssh_conn_id"]) as hook:  # as the next task does
        assert hook.run(Command(("echo", "in"))).stdout == b"in\n"
    assert any("#/stacks/events?stackId=arn%3Aaws" in link for link in ti.pushed.values())
    assert any(link.endswith("#dashboards/dashboard/c-us-east-1") for link in ti.pushed.values())


def test_secrets_stay_where_they_are(pcluster: PlayedPcluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Credentials reach the process by its environment alone; no key and no signed address is said or handed on."""
    pcluster.answers("describe_cluster", NOT_FOUND, pcluster.described("CREATE_COMPLETE"))
    ti = TaskInstance()
    result = run(create(deferrable=True), ti)
    for request in pcluster.asked():
        assert request["environment"]["AWS_ACCESS_KEY_ID"] == "AKIDEXAMPLE"
        assert not any(name.startswith("AIRFLOW_CONN") for name in request["environment"])
    arguments = json.dumps([request["arguments"] for request in pcluster.asked()])
    for place in (json.dumps([result, ti.pushed]), arguments, "".join(capsys.readouterr())):
        assert "wJalrXUtnFEMI" not in place
        assert "PRIVATE KEY" not in place
        assert "X-Amz-Signature" not in place


def test_a_cluster_that_is_right_is_left_alone(pcluster: PlayedPcluster) -> None:
    pcluster.configuration = "# the same in another order\nScheduling: {Scheduler: slurm}\n" + WANTED.replace(
        "Scheduling: {Scheduler: slurm}\n", ""
    )
    pcluster.answers("describe_cluster", pcluster.described("UPDATE_COMPLETE"))
    assert run(create())["configuration_hash"] == configuration_hash(read_configuration(WANTED))
    assert pcluster.changes == []


def test_a_difference_is_shown_and_brought_about(
    pcluster: PlayedPcluster, capsys: pytest.CaptureFixture[str]
) -> None:
    pcluster.configuration = OTHER
    states = [pcluster.described(state) for state in ("CREATE_COMPLETE", "UPDATE_IN_PROGRESS")]
    pcluster.answers("describe_cluster", *states)
    task = create(deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        task.execute({"ti": TaskInstance()})  # type: ignore[arg-type]
    assert "-  InstanceType: m7i.2xlarge\n+  InstanceType: m7i.xlarge" in capsys.readouterr().out
    assert pcluster.changes == ["update_cluster"]
    pcluster.configuration = WANTED
    pcluster.answers("describe_cluster", pcluster.described("UPDATE_COMPLETE"))
    outcome = asyncio.run(fired(deferral.value.trigger))
    assert task.execute_complete({"ti": TaskInstance()}, outcome)["cluster_name"] == "c"  # type: ignore[arg-type]
    assert pcluster.changes == ["update_cluster"]


def test_the_compute_fleet_is_stopped_for_a_change_that_needs_it_and_started_again(
    pcluster: PlayedPcluster,
) -> None:
    """Each step follows from how the cluster stands, so a retry in the middle goes on from there."""
    pcluster.configuration = OTHER
    pcluster.queue(f"7|RUNNING|ec2-user|{OURS.comment}")
    (pcluster.folder / "update_cluster" / "001.json").unlink()
    pcluster.answers("update_cluster", error("bad_configuration", "Update failure", STOP_THE_FLEET), ACCEPTED)
    pcluster.answers(
        "describe_cluster", pcluster.described("CREATE_COMPLETE"), pcluster.described("CREATE_COMPLETE")
    )
    pcluster.answers("describe_cluster", pcluster.described("CREATE_COMPLETE", "STOPPING"))
    pcluster.answers("describe_cluster", *[pcluster.described("CREATE_COMPLETE", "STOPPED")] * 2)
    task = create(deferrable=True)
    with pytest.raises(TaskDeferred) as stopping:
        task.execute({"ti": TaskInstance()})  # type: ignore[arg-type]
    assert stopping.value.trigger.plan.doing == "fleet"  # type: ignore[attr-defined]
    outcome = asyncio.run(fired(stopping.value.trigger))
    with pytest.raises(TaskDeferred) as updating:
        task.execute_complete({"ti": TaskInstance()}, outcome)  # type: ignore[arg-type]
    assert updating.value.trigger.plan.doing == "update"  # type: ignore[attr-defined]
    pcluster.configuration = WANTED
    states = [pcluster.described("UPDATE_COMPLETE", fleet) for fleet in ("STARTING", "RUNNING")]
    pcluster.answers("describe_cluster", *states)  # after the last answer, which stays: STOPPED
    run(create(deferrable=True))
    assert [request["arguments"].get("status") for request in pcluster.asked("update_compute_fleet")] == [
        "STOP_REQUESTED",
        "START_REQUESTED",
    ]
    assert pcluster.changes == [
        *("update_cluster", "update_compute_fleet", "update_cluster", "update_compute_fleet"),
    ]


def test_jobs_of_others_are_not_ended_for_an_update(pcluster: PlayedPcluster) -> None:
    pcluster.configuration = OTHER
    pcluster.queue(f"7|RUNNING|ec2-user|{OURS.comment}", "8|PENDING|ann|(null)")
    (pcluster.folder / "update_cluster" / "001.json").unlink()
    pcluster.answers("update_cluster", error("bad_configuration", "Update failure", STOP_THE_FLEET))
    pcluster.answers("describe_cluster", pcluster.described("CREATE_COMPLETE"))
    with pytest.raises(ClusterBusy, match=r"1 jobs there: job 8 \(PENDING, of user ann\)"):
        run(create())
    assert pcluster.asked("update_compute_fleet") == []


def test_a_bad_configuration_fails_at_once_with_all_that_is_wrong(pcluster: PlayedPcluster) -> None:
    pcluster.answers("describe_cluster", NOT_FOUND)
    (pcluster.folder / "create_cluster" / "001.json").unlink()
    pcluster.answers(
        "create_cluster", error("bad_configuration", "invalid", "no such subnet", "no such type")
    )
    with pytest.raises(BadConfiguration, match=r"(?s)no such subnet.*no such type"):
        run(create())


def test_a_failed_creation_is_reported_with_what_failed_first(pcluster: PlayedPcluster) -> None:
    pcluster.answers("describe_cluster", NOT_FOUND, pcluster.described("CREATE_FAILED", "UNKNOWN"))
    pcluster.answers(
        "get_cluster_stack_events",
        events(
            BEGUN,
            event(2, "Fsx", "CREATE_FAILED", "Resource creation cancelled"),
            event(3, "HeadNode", "CREATE_FAILED", "Your quota allows for 0 more running instances"),
            event(4, "c", "CREATE_FAILED", "The following resource(s) failed to create"),
        ),
    )
    (pcluster.folder / "get_cluster_stack_events" / "001.json").unlink()
    with pytest.raises(ClusterFailed, match=r"HeadNode .*CREATE_FAILED: Your quota allows.*left as it is"):
        run(create(deferrable=True))
    assert pcluster.changes == ["create_cluster"]
    with pytest.raises(ClusterFailed, match="CREATE_FAILED"):  # a retry does not build upon ruins
        run(create(deferrable=True))


def test_a_failed_creation_is_removed_if_so_asked_and_the_retry_creates_anew(
    pcluster: PlayedPcluster,
) -> None:
    rolled_back = pcluster.described("CREATE_FAILED", "UNKNOWN", stack="ROLLBACK_COMPLETE")
    rolling = pcluster.described("CREATE_FAILED", "UNKNOWN", stack="ROLLBACK_IN_PROGRESS")
    pcluster.answers("describe_cluster", NOT_FOUND, rolling, rolled_back)
    with pytest.raises(ClusterFailed, match=r"ROLLBACK_COMPLETE.*is being deleted"):
        run(create(delete_on_failure=True))
    assert pcluster.changes == ["create_cluster", "delete_cluster"]
    going = pcluster.described("DELETE_IN_PROGRESS", "UNKNOWN")
    pcluster.answers("describe_cluster", going, NOT_FOUND, NOT_FOUND, pcluster.described("CREATE_COMPLETE"))
    (pcluster.folder / "describe_cluster" / "003.json").unlink()
    run(create(delete_on_failure=True))
    assert pcluster.changes == ["create_cluster", "delete_cluster", "create_cluster"]


def test_an_update_that_was_rolled_back_is_reported(pcluster: PlayedPcluster) -> None:
    pcluster.configuration = OTHER
    rolled_back = pcluster.described("UPDATE_FAILED", stack="UPDATE_ROLLBACK_COMPLETE")
    pcluster.answers("describe_cluster", pcluster.described("CREATE_COMPLETE"), rolled_back)
    (pcluster.folder / "get_cluster_stack_events" / "001.json").unlink()
    failed = event(12, "Queue", "UPDATE_FAILED", "no capacity")
    pcluster.answers("get_cluster_stack_events", events(BEGUN, UPDATE_BEGUN, failed))
    with pytest.raises(ClusterFailed, match=r"runs as before.*Queue .*UPDATE_FAILED: no capacity"):
        run(create(deferrable=True))


def test_two_at_once_create_it_once(pcluster: PlayedPcluster) -> None:
    """Who comes second waits for the first, and compares."""
    (pcluster.folder / "create_cluster" / "001.json").unlink()
    pcluster.answers("create_cluster", error("conflict", "Cluster c already exists."))
    moving, done = pcluster.described("CREATE_IN_PROGRESS"), pcluster.described("CREATE_COMPLETE")
    pcluster.answers("describe_cluster", NOT_FOUND, moving, done)
    assert run(create(deferrable=True))["nodes"] == 1
    assert pcluster.changes == ["create_cluster"]


def test_a_retry_goes_on_with_the_creation_that_it_finds(pcluster: PlayedPcluster) -> None:
    pcluster.answers(
        "describe_cluster", pcluster.described("CREATE_IN_PROGRESS"), pcluster.described("CREATE_COMPLETE")
    )
    assert run(create(deferrable=True))["nodes"] == 1
    assert pcluster.changes == []


def test_a_cluster_that_somebody_deletes_meanwhile(pcluster: PlayedPcluster) -> None:
    moving, going = pcluster.described("CREATE_IN_PROGRESS"), pcluster.described("DELETE_IN_PROGRESS")
    pcluster.answers("describe_cluster", NOT_FOUND, moving, going, NOT_FOUND)
    with pytest.raises(ClusterFailed, match="somebody has deleted it"):
        run(create(deferrable=True))
    assert pcluster.changes == ["create_cluster"]


@pytest.mark.parametrize(
    ("deferrable", "kind"), [(True, "throttled"), (True, "credentials"), (False, "other")]
)
def test_no_usable_answer_while_waiting(
    pcluster: PlayedPcluster, deferrable: bool, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """AWS throttles us, the credentials have expired for a moment, something broke: it is looked again."""
    pcluster.answers("describe_cluster", NOT_FOUND, pcluster.described("CREATE_IN_PROGRESS"))
    pcluster.answers("describe_cluster", error(kind, "not now"), pcluster.described("CREATE_COMPLETE"))
    run(create(deferrable=deferrable, unanswered_timeout_seconds=60.0))
    assert "not now; looking again" in capsys.readouterr().out


@pytest.mark.parametrize(("deferrable", "kind"), [(True, "credentials"), (False, "throttled")])
def test_no_usable_answer_for_too_long(pcluster: PlayedPcluster, deferrable: bool, kind: str) -> None:
    pcluster.answers("describe_cluster", NOT_FOUND, error(kind, "The security token has expired"))
    with pytest.raises(ClusterUnclear, match=r"no usable answer for .*token has expired"):
        run(create(deferrable=deferrable))


def test_a_first_look_that_is_throttled_is_repeated(pcluster: PlayedPcluster) -> None:
    pcluster.answers(
        "describe_cluster", error("throttled", "Rate exceeded"), pcluster.described("CREATE_COMPLETE")
    )
    assert run(create(unanswered_timeout_seconds=60.0))["nodes"] == 1
    (pcluster.folder / "describe_cluster" / "002.json").unlink()
    pcluster.answers("describe_cluster", error("throttled", "Rate exceeded"))
    with pytest.raises(Throttled):
        run(create())


def test_time_that_is_up_leaves_the_cluster_to_itself(pcluster: PlayedPcluster) -> None:
    pcluster.answers("describe_cluster", NOT_FOUND, pcluster.described("CREATE_IN_PROGRESS"))
    with pytest.raises(ClusterUnclear, match="CREATE_IN_PROGRESS, and the task's time is up"):
        run(create(deferrable=True, timeout_seconds=0.0))
    assert pcluster.changes == ["create_cluster"]


def test_a_quota_is_said(pcluster: PlayedPcluster) -> None:
    pcluster.answers("describe_cluster", NOT_FOUND)
    (pcluster.folder / "create_cluster" / "001.json").unlink()
    pcluster.answers("create_cluster", error("limit", "You have reached your vCPU limit"))
    with pytest.raises(LimitReached, match="vCPU"):
        run(create())


def test_a_console_without_host_keys_lets_nobody_in(pcluster: PlayedPcluster, server: PlayedServer) -> None:
    pcluster.console = pcluster.console.replace("BEGIN SSH HOST KEY KEYS", "BEGIN SSH HOST KEY FINGERPRINTS")
    pcluster.answers("describe_cluster", pcluster.described("CREATE_COMPLETE"))
    before = server.counts.connections
    with pytest.raises(ConnectionBroken, match="does not show its SSH host keys"):
        run(create())
    assert server.counts.connections == before


def test_a_head_node_with_another_host_key_than_on_its_console_is_refused(
    pcluster: PlayedPcluster, server: PlayedServer
) -> None:
    key = server.host_key.export_public_key().decode().split()[1]
    forged = key[:-8] + ("AAAAAAAA" if key[-8:] != "AAAAAAAA" else "BBBBBBBB")
    pcluster.console = pcluster.console.replace(key, forged)
    pcluster.answers("describe_cluster", pcluster.described("CREATE_COMPLETE"))
    cluster, commands = describe(ParallelClusterHook().pcluster(), "c"), server.counts.commands
    assert cluster is not None

    async def log_in() -> None:
        async with AsyncSlurmHook(str(ParallelClusterHook().way_in(cluster, "cluster_key"))) as hook:
            await hook.run(Command(("echo", "in")))

    with pytest.raises(InvalidJob, match="another key than the head node printed on its console"):
        asyncio.run(log_in())
    assert server.counts.commands == commands


@BOTH
def test_a_cluster_is_deleted_and_seen_to_be_gone(pcluster: PlayedPcluster, deferrable: bool) -> None:
    pcluster.queue(f"7|RUNNING|ec2-user|{OURS.comment}")
    going = pcluster.described("DELETE_IN_PROGRESS", "UNKNOWN")
    pcluster.answers("describe_cluster", pcluster.described("CREATE_COMPLETE"), going, going, NOT_FOUND)
    assert run(delete(deferrable=deferrable)) is None
    assert pcluster.changes == ["delete_cluster"]
    run(delete(deferrable=deferrable))  # once more, of nothing
    assert pcluster.changes == ["delete_cluster"]


def test_foreign_jobs_keep_a_cluster_alive_unless_told(pcluster: PlayedPcluster) -> None:
    other = RunTag("genomics_batch", "manual__2")
    pcluster.queue(
        f"7|RUNNING|ec2-user|{OURS.comment}", f"8_1|RUNNING|ec2-user|{other.comment}", "9|PENDING|ann|a|b"
    )
    pcluster.answers("describe_cluster", pcluster.described("CREATE_COMPLETE"))
    with pytest.raises(ClusterBusy, match=r"2 jobs there: job 8_1 \(RUNNING, run manual__2.*of user ann"):
        run(delete())
    assert pcluster.changes == []
    pcluster.answers("describe_cluster", pcluster.described("CREATE_COMPLETE"), NOT_FOUND)
    (pcluster.folder / "describe_cluster" / "001.json").unlink()
    run(delete(even_if_busy=True))
    assert pcluster.changes == ["delete_cluster"]


def test_a_deletion_that_fails_is_said(pcluster: PlayedPcluster) -> None:
    stopped = pcluster.described("CREATE_COMPLETE", "STOPPED")
    pcluster.answers("describe_cluster", stopped, pcluster.described("DELETE_FAILED", "UNKNOWN"))
    (pcluster.folder / "get_cluster_stack_events" / "001.json").unlink()
    begun, failed = (
        event(21, "c", "DELETE_IN_PROGRESS"),
        event(22, "Vpc", "DELETE_FAILED", "has dependencies"),
    )
    pcluster.answers("get_cluster_stack_events", events(BEGUN, begun, failed))
    with pytest.raises(ClusterFailed, match=r"not deleted to the end.*Vpc .*has dependencies"):
        run(delete(deferrable=True))


def test_the_run_s_own_cluster_has_a_name_of_its_own(pcluster: PlayedPcluster) -> None:
    pcluster.answers("describe_cluster", NOT_FOUND)
    for run_id in ("manual__1", "manual__1", "manual__2"):
        run(delete(cluster_name=None), TaskInstance(run_id=run_id))
    names = [request["arguments"]["cluster_name"] for request in pcluster.asked("describe_cluster")]
    assert names[0] == names[1] == OURS.cluster_name != names[2]


@BOTH
def test_the_sensor_waits_for_a_cluster_that_somebody_else_makes(
    pcluster: PlayedPcluster, deferrable: bool
) -> None:
    states = [pcluster.described(state) for state in ("CREATE_IN_PROGRESS", "CREATE_COMPLETE")]
    pcluster.answers("describe_cluster", NOT_FOUND, *states)
    assert run(sensor(deferrable))["cluster_uid"].endswith("stack/c/51af3dc0-da77-11e4-872e-1234567db123")
    assert pcluster.changes == []


@BOTH
def test_the_sensor_fails_of_a_cluster_that_was_not_made(pcluster: PlayedPcluster, deferrable: bool) -> None:
    pcluster.answers("describe_cluster", pcluster.described("CREATE_FAILED", "UNKNOWN"))
    with pytest.raises(ClusterFailed, match="cluster c is CREATE_FAILED"):
        run(sensor(deferrable))


def sensor(deferrable: bool) -> ParallelClusterSensor:
    return ParallelClusterSensor(
        task_id="wait", cluster_name="c", poke_interval=0.01, deferrable=deferrable, timeout=60
    )


@pytest.mark.parametrize("operator", [EnsureClusterOperator, ReleaseClusterOperator])
def test_any_other_cluster_is_refused_before_anything_is_asked(
    operator: type[EnsureClusterOperator | ReleaseClusterOperator],
) -> None:
    with pytest.raises(InvalidJob, match=r"'auto'.*'existing'.*'parallelcluster'"):
        operator(task_id="cluster", cluster="auto").execute({})


def test_the_choice_of_a_cluster(pcluster: PlayedPcluster) -> None:
    pcluster.answers("describe_cluster", pcluster.described("CREATE_COMPLETE"))
    settings: dict[str, Any] = {"cluster_name": "c", "ssh_conn_id": "cluster_key"}
    ensure = EnsureClusterOperator(task_id="e", cluster="parallelcluster", configuration=WANTED, **settings)
    assert SshAddress.parse(run(ensure)["ssh_conn_id"]).conn_id == "cluster_key"
    assert pcluster.asked("describe_cluster")
    before = len(pcluster.asked())
    release = ReleaseClusterOperator(task_id="r", cluster="existing", **settings)
    assert run(release) is None
    assert len(pcluster.asked()) == before


def test_cluster_and_connection_are_templated() -> None:
    task = EnsureClusterOperator(
        task_id="cluster", cluster="{{ c }}", ssh_conn_id="{{ s }}", configuration="{{ y }}"
    )
    task.render_template_fields({"c": "existing", "s": "slurm", "y": "a: b"})  # type: ignore[typeddict-unknown-key,typeddict-item]
    assert (task.cluster, task.ssh_conn_id, task.configuration) == ("existing", "slurm", "a: b")
