"""An AWS account for ParallelCluster: a moto server with what a cluster needs, and what a mistake would name."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from infra.setup.commands import LOCAL, PROJECT

PYTHON = LOCAL / "venvs" / "pcluster" / "bin" / "python"
REGION = "us-east-1"

#: What moto cannot serve: trial launches from a launch template ("must contain the parameter ebs"), and the
#: type of a key pair ('KeyType').
NOT_IN_MOTO = [
    f"type:{name}Validator" for name in ("HeadNodeLaunchTemplate", "ComputeResourceLaunchTemplate", "KeyPair")
]

_IMAGE = {
    "ami_id": "ami-0123456789abcdef0",
    "name": "aws-parallelcluster-3.16.1-amzn2023-hvm-x86_64-202601010000",
    "description": "AWS ParallelCluster AMI for amzn2023",
    "owner_id": "247102896272",
    "image_location": "amazon/aws-parallelcluster-3.16.1-amzn2023-hvm-x86_64-202601010000",
    "image_type": "machine",
    "architecture": "x86_64",
    "public": True,
    "state": "available",
    "creation_date": "2026-01-01T00:00:00.000Z",
    "root_device_type": "ebs",
    "root_device_name": "/dev/xvda",
    "hypervisor": "xen",
    "virtualization_type": "hvm",
}


@dataclass(frozen=True)
class Account:
    """A moto server, the variables that lead to it, and the cluster that can be made there."""

    environment: dict[str, str]
    public_subnet: str
    cluster: dict[str, Any]
    secret: str
    security_group: str


@contextmanager
def running_account(folder: Path) -> Iterator[Account]:
    """Start a moto server that knows ParallelCluster's image, and fill it; it ends with the context."""
    images = folder / "images.json"
    images.write_text(json.dumps([_IMAGE]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (folder / "moto.log").open("wb") as log:
        server = subprocess.Popen(
            [PROJECT / ".venv" / "bin" / "moto_server", "-H", "127.0.0.1", "-p", str(port)],
            env=os.environ | {"MOTO_AMIS_PATH": str(images)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _await(url, server)
        yield _fill(url)
    finally:
        server.terminate()
        server.wait()


def _await(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, "the moto server ended early"
        try:
            urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=10).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the moto server does not answer"
            time.sleep(0.1)


def _fill(url: str) -> Account:
    environment = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL": url}
    session = boto3.Session("test", "test", region_name=REGION)
    ec2, s3 = session.client("ec2", endpoint_url=url), session.client("s3", endpoint_url=url)
    ec2.create_key_pair(KeyName="batch")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    private, public = (
        ec2.create_subnet(VpcId=vpc, CidrBlock=cidr, AvailabilityZone=f"{REGION}a")["Subnet"]["SubnetId"]
        for cidr in ("10.0.0.0/20", "10.0.16.0/20")
    )
    ec2.modify_subnet_attribute(SubnetId=public, MapPublicIpOnLaunch={"Value": True})
    group = ec2.create_security_group(GroupName="accounts", Description="accounts", VpcId=vpc)["GroupId"]
    s3.create_bucket(Bucket="lab")
    for name in ("code.zip", "node-environment.sh", "slurm-budget.sh"):
        s3.put_object(Bucket="lab", Key=f"code/{name}", Body=b"")
    secrets = session.client("secretsmanager", endpoint_url=url)
    cluster = {
        "region": REGION,
        "head_node": {"subnet": private, "ssh_key": "batch", "ssh_from": "10.0.0.0/16"},
        "compute_subnet": private,
        "data_uri": "s3://lab/data",
        "code": {
            "archive": "s3://lab/code/code.zip",
            "archive_sha256": "0" * 64,
            "node_environment": "s3://lab/code/node-environment.sh",
        },
        "budget": {"usd": 500, "hours": 6},
    }
    return Account(
        environment=environment,
        public_subnet=public,
        cluster=cluster,
        secret=secrets.create_secret(Name="slurm", SecretString="x")["ARN"],
        security_group=group,
    )
