"""The real ParallelCluster, in its own environment: its schema, and its validation against a moto server."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest

from strandloop.errors import InvalidJob
from strandloop.pcluster import (
    PYTHON_VARIABLE,
    BadConfiguration,
    Conflict,
    NoCredentials,
    NotFound,
    Pcluster,
    Throttled,
)
from tests.integration.pcluster_moto import NOT_IN_MOTO, PYTHON, REGION, Account, running_account
from tests.tasks.cluster_examples import EXAMPLES, GOLDEN, ONE_CPU_QUEUE, rendered

pytestmark = pytest.mark.integration

SCHEMA_CHECK = """
import json, sys, yaml
from pcluster.schemas.cluster_schema import ClusterSchema
answers = []
for path in sys.argv[1:]:
    try:
        ClusterSchema(cluster_name="strandloop").load(yaml.safe_load(open(path)))
        answers.append("fits")
    except Exception as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with running_account(tmp_path_factory.mktemp("aws")) as account:
        yield account


@pytest.fixture(scope="module", autouse=True)
def own_environment() -> Iterator[None]:
    assert PYTHON.exists(), "make setup-tests builds ParallelCluster's environment"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PYTHON_VARIABLE, str(PYTHON))
        yield


def test_every_golden_rendering_fits_the_schema(tmp_path: Path) -> None:
    misspelt = tmp_path / "misspelt.yaml"
    misspelt.write_text((GOLDEN / "cluster_default.yaml").read_text().replace("MaxCount:", "MaxCounts:"))
    paths = [*(GOLDEN / f"cluster_{name}.yaml" for name in EXAMPLES), misspelt]
    answer = subprocess.run(
        [PYTHON, "-I", "-c", SCHEMA_CHECK, *paths],
        env={"AWS_DEFAULT_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    *fits, refused = json.loads(answer.stdout.splitlines()[-1])
    assert fits == ["fits"] * len(EXAMPLES)
    assert "MaxCounts" in refused


def test_a_sound_cluster_passes_the_validation(account: Account) -> None:
    fields = account.cluster | {
        "accounting": {
            "database": "accounts.example.internal:3306",
            "user": "slurm",
            "password_secret": account.secret,
            "client_security_group": account.security_group,
            "budget_script": "s3://lab/code/slurm-budget.sh",
        }
    }
    answer = _dry_run(account, fields)
    assert answer["message"] == "Request would have succeeded, but DryRun flag is set."
    # That the file system goes with the cluster is what is wanted.
    assert {finding["type"] for finding in answer["validationMessages"]} == {"DeletionPolicyValidator"}


# One process for four mistakes, since each takes seconds; one mistake alone gives its own lines alone.
MISTAKES = {
    "EFA on an instance type without it": "(g5.2xlarge) do not support EFA",
    "EFA in a public subnet": "auto-assign public IPs",
    "impossible FSx size": "Capacity for FSx SCRATCH_2 file systems is 1,200 GB or increments of 2,400 GB.",
    "missing bucket": "The S3 bucket 'nobodys' does not appear to exist",
}


@pytest.fixture(scope="module")
def refusal(account: Account) -> BadConfiguration:
    """What is said of a cluster with all of these mistakes."""
    without_efa = ONE_CPU_QUEUE | {"name": "gpu", "instance_types": ["g5.2xlarge"]}
    fields = account.cluster | {
        "queues": [ONE_CPU_QUEUE, without_efa],
        "compute_subnet": account.public_subnet,
        "shared_storage": {"gibibytes": 1300},
        "data_uri": "s3://nobodys/data",
    }
    with pytest.raises(BadConfiguration) as refused:
        _dry_run(account, fields)
    return refused.value


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_readable_line_of_the_one_error(refusal: BadConfiguration, mistake: str) -> None:
    first, *lines = str(refusal).splitlines()
    assert first == "pcluster create-cluster: Invalid cluster configuration."
    (line,) = [line for line in lines if MISTAKES[mistake] in line]
    assert line.startswith("  - ERROR: ")


def test_a_refused_configuration_is_not_tried_again(refusal: BadConfiguration) -> None:
    assert isinstance(refusal, InvalidJob)


def test_an_unknown_instance_type_is_named(account: Account) -> None:
    queue = ONE_CPU_QUEUE | {"instance_types": ["c5n.17xlarge"], "usd_per_hour": 1}
    with pytest.raises(BadConfiguration) as refused:
        _dry_run(account, account.cluster | {"queues": [queue]})
    assert str(refused.value) == (
        "pcluster create-cluster: Invalid cluster configuration: "
        "The following supplied instance types do not exist: [c5n.17xlarge]"
    )


def test_an_unknown_key_is_named_with_its_place(account: Account) -> None:
    text = rendered(account.cluster | {"queues": [ONE_CPU_QUEUE]}).replace("MaxCount:", "MaxCounts:")
    with pytest.raises(BadConfiguration) as refused:
        _dry_run(account, text)
    place = "Scheduling.SlurmQueues.0.ComputeResources.0.MaxCounts"
    assert str(refused.value).splitlines() == [
        "pcluster create-cluster: Invalid cluster configuration.",
        f"  - ERROR: {place}: Unknown field. (ConfigSchemaValidator)",
    ]


def test_a_cluster_that_is_not_there(account: Account) -> None:
    with pytest.raises(NotFound, match="'strandloop' does not exist"):
        _pcluster(account).call("describe_cluster", cluster_name="strandloop")


def test_a_cluster_of_that_name_is_a_conflict(account: Account) -> None:
    url = account.environment["AWS_ENDPOINT_URL"]
    stacks = boto3.Session("test", "test", region_name=REGION).client("cloudformation", endpoint_url=url)
    topic = '{"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}'
    stacks.create_stack(StackName="taken", TemplateBody=topic)
    with pytest.raises(Conflict, match="Cluster taken already exists"):
        _dry_run(account, account.cluster, cluster_name="taken")


@pytest.mark.parametrize(
    ("code", "error"), [("ExpiredToken", NoCredentials), ("RequestLimitExceeded", Throttled)]
)
def test_what_aws_refuses_is_told_apart(code: str, error: type[Exception]) -> None:
    class Refusal(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            error = f"<Error><Code>{code}</Code><Message>no: {code}</Message></Error>"
            words = f"<ErrorResponse>{error}</ErrorResponse>"
            self.send_response(400)
            self.send_header("Content-Length", str(len(words)))
            self.end_headers()
            self.wfile.write(words.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_MAX_ATTEMPTS": "1",
        }
        with pytest.raises(error, match=f"pcluster delete-cluster: no: {code}"):
            Pcluster(region=REGION, environment=environment).call("delete_cluster", cluster_name="strandloop")
        server.shutdown()


def _pcluster(account: Account) -> Pcluster:
    return Pcluster(region=REGION, environment=account.environment)


def _dry_run(
    account: Account, cluster: dict[str, Any] | str, *, cluster_name: str = "strandloop"
) -> dict[str, Any]:
    return _pcluster(account).call(
        "create_cluster",
        cluster_name=cluster_name,
        cluster_configuration=cluster if isinstance(cluster, str) else rendered(cluster),
        dryrun=True,
        suppress_validators=NOT_IN_MOTO,
    )
