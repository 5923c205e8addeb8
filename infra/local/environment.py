"""The environment of everything that talks to the stack: Airflow, its connections, boto3, the tests."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

from infra.local.layout import Layout, StackError, current_user
from infra.local.part import REGION, aws_environment
from infra.local.ray_cluster import RayCluster
from infra.local.s3 import BUCKET
from infra.local.slurm import SlurmCluster
from infra.local.ssh import SshServer


def stack_environment(*, ray: RayCluster, ssh: SshServer, slurm: SlurmCluster) -> dict[str, str]:
    """Variable names and values; connections are Airflow's, as environment variables."""
    layout, ports = ssh.layout, ssh.ports
    aws = aws_environment(ports)
    return {
        **aws,
        "AIRFLOW_HOME": str(layout.state / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(layout.project / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(layout.project / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(ports["airflow"]),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{ports['airflow']}",
        "AIRFLOW_CONN_RAY": ray.url,
        "AIRFLOW_CONN_SLURM": json.dumps(
            {
                "conn_type": "ssh",
                "host": "127.0.0.1",
                "port": ports["ssh"],
                "login": current_user(),
                "extra": {
                    "key_file": str(ssh.user_key),
                    "host_key": ssh.host_key(),
                    "no_host_key_check": False,
                },
            }
        ),
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(
            {
                "conn_type": "aws",
                "login": aws["AWS_ACCESS_KEY_ID"],
                "password": aws["AWS_SECRET_ACCESS_KEY"],
                "extra": {"endpoint_url": aws["AWS_ENDPOINT_URL"], "region_name": REGION},
            }
        ),
        "SLURM_CONF": str(slurm.config),
        # There after `python -m infra.setup --with parallelcluster`.
        "STRANDLOOP_PCLUSTER_PYTHON": str(layout.project / ".local/venvs/pcluster/bin/python"),
        "STRANDLOOP_DATA_URI": f"s3://{BUCKET}",
        "STRANDLOOP_SHARED_DIR": str(layout.shared),
        "STRANDLOOP_CODE_VERSION": code_version(layout.project),
        "PYTHONPATH": str(layout.project),
    }


def code_version(project: Path) -> str:
    """The checkout's commit, marked where files differ from it; what reports name as their code version."""
    command = ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown: not a git checkout"


def write_environment(layout: Layout, values: dict[str, str]) -> None:
    """Write the KEY=VALUE file, readable by its owner only."""
    part = layout.environment_file.with_name("environment.part")
    part.touch(mode=0o600)
    part.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    part.replace(layout.environment_file)


def read_environment(layout: Layout) -> dict[str, str]:
    """The environment as the last ``up`` wrote it."""
    if not layout.environment_file.exists():
        raise StackError(f"there is no stack below {layout.state}: run `make up`")
    lines = layout.environment_file.read_text().splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def as_shell(values: dict[str, str]) -> str:
    """``export`` lines for a shell's ``eval``."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())
