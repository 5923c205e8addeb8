"""What the real ParallelCluster answers of a stack is what the operators read; the AWS behind it is moto's."""

from __future__ import annotations

import json
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from infra.local.layout import PROJECT
from strandloop.hooks.parallel_cluster import describe, events_since
from strandloop.pcluster import PYTHON_VARIABLE, Pcluster
from strandloop.run_tag import TAG, RunTag

pytestmark = pytest.mark.integration

RUN = RunTag("genomics_batch", "manual__1")
NAME = RUN.cluster_name
REGION = "us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def pcluster(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Pcluster:
    python = PROJECT / ".local" / "venvs" / "pcluster" / "bin" / "python"
    assert python.exists(), "make setup-tests makes the environment of ParallelCluster"
    monkeypatch.setenv(PYTHON_VARIABLE, str(python))
    return Pcluster(region=REGION, environment={**KEYS, "AWS_ENDPOINT_URL": endpoint})


def test_the_answers_of_the_real_program_are_read(pcluster: Pcluster, endpoint: str) -> None:
    assert describe(pcluster, NAME) is None
    aws = boto3.client("cloudformation", region_name=REGION, endpoint_url=endpoint, **lower(KEYS))
    tags = {"parallelcluster:version": "3.16.1", "parallelcluster:cluster-name": NAME, TAG: RUN.value}
    aws.create_stack(
        StackName=NAME,
        TemplateBody=json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}}),
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )
    cluster = describe(pcluster, NAME)
    assert cluster is not None
    assert (cluster.status, cluster.whole, cluster.moving) == ("CREATE_COMPLETE", True, False)
    assert (cluster.name, cluster.region) == (NAME, REGION)
    assert f":stack/{NAME}/" in cluster.uid
    assert RunTag.of_tags(cluster.tags) == RUN
    assert cluster.created_at.endswith("Z")
    told = events_since(pcluster, NAME, None)
    assert [event.status for event in told] == ["CREATE_IN_PROGRESS", "CREATE_COMPLETE"]
    assert told[0].begins(NAME)


def lower(names: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in names.items()}
