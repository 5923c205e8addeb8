"""The real ParallelCluster, in its own environment: its schema, and its validation against a moto server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strandloop.errors import InvalidJob
from strandloop.pcluster import PYTHON_VARIABLE, BadConfiguration, NotFound, Pcluster
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


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PYTHON.exists(), "make setup-tests builds ParallelCluster's environment"
    monkeypatch.setenv(PYTHON_VARIABLE, str(PYTHON))


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


@pytest.mark.parametrize("accounts", [False, True])
def test_a_sound_cluster_passes_the_validation(account: Account, accounts: bool) -> None:
    fields = account.cluster
    if accounts:
        fields = fields | {
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


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "EFA on an instance type without it": (
        {"queues": [ONE_CPU_QUEUE | {"instance_types": ["g5.2xlarge"]}]},
        "(g5.2xlarge) do not support EFA",
    ),
    "EFA in a public subnet": ({"compute_subnet": "PUBLIC"}, "auto-assign public IPs"),
    "impossible FSx size": (
        {"shared_storage": {"gibibytes": 1300}},
        "Capacity for FSx SCRATCH_2 file systems is 1,200 GB or increments of 2,400 GB.",
    ),
    "missing bucket": ({"data_uri": "s3://nobodys/data"}, "'nobodys' does not appear to exist"),
    "unknown instance type": (
        {"queues": [ONE_CPU_QUEUE | {"instance_types": ["c5n.17xlarge"], "usd_per_hour": 1}]},
        "instance types do not exist: [c5n.17xlarge]",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_readable_error(account: Account, mistake: str) -> None:
    change, words = MISTAKES[mistake]
    fields = account.cluster | {"queues": [ONE_CPU_QUEUE]} | change
    if fields["compute_subnet"] == "PUBLIC":
        fields["compute_subnet"] = account.public_subnet
    with pytest.raises(BadConfiguration) as refused:
        _dry_run(account, fields)
    told = str(refused.value)
    assert told.startswith("pcluster create-cluster: Invalid cluster configuration")
    assert words in told
    assert "Traceback" not in told
    assert isinstance(refused.value, InvalidJob)  # Airflow does not try again


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


def _pcluster(account: Account) -> Pcluster:
    return Pcluster(region=REGION, environment=account.environment)


def _dry_run(account: Account, cluster: dict[str, Any] | str) -> dict[str, Any]:
    return _pcluster(account).call(
        "create_cluster",
        cluster_name="strandloop",
        cluster_configuration=cluster if isinstance(cluster, str) else rendered(cluster),
        dryrun=True,
        suppress_validators=NOT_IN_MOTO,
    )
