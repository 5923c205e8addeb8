"""What docker-compose.yaml and the Dockerfile promise, read from the files; no engine needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.setup.environments import UV_VERSION

PROJECT = Path(__file__).resolve().parents[2]
ONE_SHOT = {"secrets", "airflow-init", "ready", "sample-batch"}


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    return dict(yaml.safe_load((PROJECT / "docker-compose.yaml").read_text()))


def test_ports_are_published_on_loopback_only(configuration: dict[str, Any]) -> None:
    published = [port for service in configuration["services"].values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_service_that_stays_has_a_health_check(configuration: dict[str, Any]) -> None:
    without = {name for name, service in configuration["services"].items() if "healthcheck" not in service}
    assert without == ONE_SHOT


def test_every_dependency_waits_for_a_condition(configuration: dict[str, Any]) -> None:
    for name, service in configuration["services"].items():
        for needed, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
            assert how == {"condition": expected}, (name, needed)


def test_volumes_are_named_and_nothing_of_the_machine_is_mounted(configuration: dict[str, Any]) -> None:
    mounted = {
        volume.split(":")[0]
        for service in configuration["services"].values()
        for volume in service.get("volumes", [])
    }
    assert mounted == configuration["volumes"].keys()


def test_only_one_service_may_write_secrets(configuration: dict[str, Any]) -> None:
    for name, service in configuration["services"].items():
        mounts = [volume for volume in service.get("volumes", []) if "-secrets:" in volume]
        assert all(mount.endswith(":ro") for mount in mounts) == (name != "secrets" or not mounts), name


def test_every_variable_is_explained(configuration: dict[str, Any]) -> None:
    used = set(re.findall(r"\$\{([A-Z_0-9]+)", (PROJECT / "docker-compose.yaml").read_text()))
    explained = set(re.findall(r"^#([A-Z_0-9]+)=", (PROJECT / ".env.example").read_text(), re.MULTILINE))
    assert used - {"CODE_VERSION"} <= explained  # build.sh finds out the version of the code itself


def test_images_build_with_the_uv_of_make_setup() -> None:
    assert f"ARG UV_VERSION={UV_VERSION}\n" in (PROJECT / "infra/images/Dockerfile").read_text()


@pytest.mark.parametrize(
    "file", ["infra/images/node/requirements.in", "infra/images/airflow/requirements.in"]
)
def test_what_images_install_is_pinned(file: str) -> None:
    pinned = set(re.findall(r"^([a-z0-9._-]+)", (PROJECT / "requirements.txt").read_text(), re.MULTILINE))
    for line in (PROJECT / file).read_text().splitlines():
        if not line.startswith("#"):
            assert "==" in line or re.split(r"\[", line)[0] in pinned, line


def test_slurm_nodes_find_their_whole_environment_in_the_image() -> None:
    needed = (PROJECT / "hpc_jobs/requirements.in").read_text()
    names = set(re.findall(r"^([a-z0-9._-]+)", needed, re.MULTILINE))
    installed = (PROJECT / "infra/images/node/requirements.in").read_text()
    assert names <= set(re.findall(r"^([a-z0-9._-]+)", installed, re.MULTILINE))
