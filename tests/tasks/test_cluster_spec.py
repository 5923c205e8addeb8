from __future__ import annotations

from typing import Any

import boto3
import pytest
import yaml

from tasks.cluster_spec import cluster_configuration, read_spec
from tasks.errors import InvalidInput
from tests.tasks.cluster_examples import (
    ACCOUNTING,
    DEFAULT,
    EXAMPLES,
    GOLDEN,
    MINIMAL,
    ONE_CPU_QUEUE,
    SPOT_GPU,
    rendered,
)


@pytest.mark.parametrize("name", EXAMPLES)
def test_renderings_are_as_they_were(name: str) -> None:
    golden = GOLDEN / f"cluster_{name}.yaml"
    assert rendered(EXAMPLES[name]) == golden.read_text(), "python -m tests.tasks.cluster_examples"


def test_out_of_the_box_there_are_three_queues() -> None:
    queues = {queue["Name"]: queue for queue in _queues(DEFAULT)}
    assert list(queues) == ["cpu-efa", "gpu", "gpu-large"]
    assert {
        name: (queue["ComputeResources"][0]["Efa"]["Enabled"], queue["CapacityType"])
        for name, queue in queues.items()
    } == {"cpu-efa": (True, "ONDEMAND"), "gpu": (False, "ONDEMAND"), "gpu-large": (True, "ONDEMAND")}


def test_nodes_may_read_the_data_and_write_results_only() -> None:
    (queue,) = _queues(MINIMAL)
    assert queue["Iam"]["S3Access"] == [
        {"BucketName": "lab", "KeyName": "code/code-5e8f.zip"},
        {"BucketName": "lab", "KeyName": "code/node-environment-71c0.sh"},
        {"BucketName": "lab"},
        {"BucketName": "lab", "KeyName": "batches/*", "EnableWriteAccess": True},
    ]
    (write,) = [access for access in _queues(SPOT_GPU)[0]["Iam"]["S3Access"] if "EnableWriteAccess" in access]
    assert write["KeyName"] == "data/batches/*"


def test_with_accounts_slurm_counts_nodes_by_their_price() -> None:
    configuration = yaml.safe_load(rendered(ACCOUNTING))
    weights = {
        queue["Name"]: queue["CustomSlurmSettings"]["TRESBillingWeights"]
        for queue in configuration["Scheduling"]["SlurmQueues"]
    }
    assert weights == {"cpu-efa": "Node=38880", "gpu": "Node=12120", "gpu-large": "Node=219576"}
    # $500 buy 128.6 hours of a node at $3.888, in minutes times its weight.
    (billing_minutes,) = configuration["HeadNode"]["CustomActions"]["OnNodeConfigured"]["Args"]
    assert int(billing_minutes) / 38880 / 60 == pytest.approx(500 / 3.888)


def test_values_stay_values() -> None:
    """No value can become another key or another type."""
    head = DEFAULT["head_node"] | {"ssh_key": 'a: "b"\n  x: {{ c }} # no'}
    assert (
        yaml.safe_load(rendered(DEFAULT | {"head_node": head}))["HeadNode"]["Ssh"]["KeyName"]
        == head["ssh_key"]
    )
    queue = ONE_CPU_QUEUE | {"name": "no"}
    assert _queues(DEFAULT | {"queues": [queue]})[0]["Name"] == "no"


def test_everything_that_is_wrong_is_told_at_once() -> None:
    fields: dict[str, Any] = DEFAULT | {
        "colour": "blue",
        "compute_subnet": "vpc-1",
        "queues": [ONE_CPU_QUEUE | {"max_nodes": 0}],
    }
    del fields["budget"]
    with pytest.raises(InvalidInput) as refused:
        read_spec(fields)
    told = str(refused.value).splitlines()
    assert told[0] == "the cluster cannot be made as it is described:"
    assert {line.split(": ")[0].strip(" -") for line in told[1:]} == {
        *("compute_subnet", "budget", "colour", "queues.0.max_nodes"),
    }
    assert any(line.endswith("it is 'vpc-1'") for line in told)


def test_two_queues_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"queues: .*'cpu-efa'"):
        read_spec(DEFAULT | {"queues": [ONE_CPU_QUEUE, ONE_CPU_QUEUE]})


def test_a_cluster_that_could_cost_more_than_its_budget_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        cluster_configuration(DEFAULT | {"budget": {"usd": 400, "hours": 6}}, run_id="r")
    assert str(refused.value).splitlines()[:-1] == [
        "the cluster could cost $480.41 in 6 hours, and its budget is $400.00:",
        "  - head node m7i.xlarge at $0.2016 an hour: $1.21",
        "  - queue cpu-efa, 8 x c5n.18xlarge at $3.888 an hour: $186.62",
        "  - queue gpu, 4 x g5.2xlarge at $1.212 an hour: $29.09",
        "  - queue gpu-large, 2 x p4d.24xlarge at $21.9576 an hour: $263.49",
    ]


def test_an_instance_type_without_a_price_needs_one() -> None:
    queue = ONE_CPU_QUEUE | {"instance_types": ["hpc7a.96xlarge"]}
    with pytest.raises(InvalidInput, match=r"no instance type 'hpc7a\.96xlarge'.*usd_per_hour"):
        cluster_configuration(DEFAULT | {"queues": [queue]}, run_id="r")


def test_code_must_have_been_published(s3_root: str) -> None:
    bucket = s3_root.removeprefix("s3://")
    code = DEFAULT["code"] | {
        "archive": f"{s3_root}/code/code-1.zip",
        "node_environment": f"{s3_root}/code/node-environment-1.sh",
    }
    boto3.client("s3").put_object(Bucket=bucket, Key="code/code-1.zip", Body=b"")
    with pytest.raises(InvalidInput, match=r"not in S3: \S+/code/node-environment-1\.sh\. "):
        cluster_configuration(DEFAULT | {"code": code}, run_id="r")

    boto3.client("s3").put_object(Bucket=bucket, Key="code/node-environment-1.sh", Body=b"")
    made = cluster_configuration(DEFAULT | {"code": code}, run_id="batch/manual__2026-11-25")
    assert (made["cluster_name"], made["region"]) == ("", "us-east-1")
    tags = yaml.safe_load(made["cluster_configuration"])["Tags"]
    assert {"Key": "strandloop:run-id", "Value": "batch/manual__2026-11-25"} in tags


def _queues(fields: dict[str, Any]) -> list[dict[str, Any]]:
    return list(yaml.safe_load(rendered(fields))["Scheduling"]["SlurmQueues"])
