"""Clusters whose ParallelCluster configurations are kept as golden files in ``golden/``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.cluster_spec import read_spec, render
from tasks.cost.prices import current_prices

GOLDEN = Path(__file__).with_name("golden")

DEFAULT: dict[str, Any] = {
    "region": "us-east-1",
    "head_node": {"subnet": "subnet-0123456789abcdef0", "ssh_key": "batch", "ssh_from": "10.0.0.0/16"},
    "compute_subnet": "subnet-0123456789abcdef1",
    "data_uri": "s3://lab/data",
    "code": {
        "archive": "s3://lab/code/code-5e8f.zip",
        "archive_sha256": "5e8f" * 16,
        "node_environment": "s3://lab/code/node-environment-71c0.sh",
    },
    "budget": {"usd": 500, "hours": 6},
}
ONE_CPU_QUEUE = {
    "name": "cpu-efa",
    "instance_types": ["c5n.18xlarge"],
    "max_nodes": 2,
    "efa": True,
    "placement_group": True,
}
MINIMAL = DEFAULT | {
    "name": "small",
    "data_uri": "s3://lab",
    "queues": [{"name": "cpu", "instance_types": ["c7i.8xlarge"], "max_nodes": 1}],
    "budget": {"usd": 2.5, "hours": 1.5},
}
SPOT_GPU = DEFAULT | {
    "queues": [
        {"name": "gpu", "instance_types": ["g6.xlarge", "g5.xlarge"], "max_nodes": 8}
        | {"spot": True, "usd_per_hour": 1.006},
        {"name": "cpu-efa", "instance_types": ["hpc7a.96xlarge"], "max_nodes": 2}
        | {"efa": True, "placement_group": True, "usd_per_hour": 7.2},
    ],
    "shared_storage": {"mount": "/scratch", "gibibytes": 4800},
    "permissions_boundary": "arn:aws:iam::123456789012:policy/cluster-boundary",
}
ACCOUNTING = DEFAULT | {
    "accounting": {
        "database": "accounts.example.internal:3306",
        "user": "slurm",
        "password_secret": "arn:aws:secretsmanager:us-east-1:123456789012:secret:slurm-Ab12Cd",
        "client_security_group": "sg-0123456789abcdef2",
        "budget_script": "s3://lab/code/slurm_budget-09aa.sh",
    },
}
EXAMPLES = {
    "default": DEFAULT,
    "minimal": MINIMAL,
    "spot_gpu": SPOT_GPU,
    "accounting": ACCOUNTING,
}


def rendered(fields: dict[str, Any]) -> str:
    """The configuration of one example."""
    return render(
        read_spec(fields), current_prices(), run_id="genomics_batch/scheduled__2026-11-25T00:00:00+00:00"
    )


if __name__ == "__main__":  # python -m tests.tasks.cluster_examples: write the golden files anew
    for name, fields in EXAMPLES.items():
        (GOLDEN / f"cluster_{name}.yaml").write_text(rendered(fields))
