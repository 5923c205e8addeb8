"""The built package in the versions of Airflow that Amazon MWAA has, with the import paths that it has there.

MWAA's own image is not here. What it does is: requirements under constraints, ``plugins.zip`` unpacked into the
plugins folder, which Airflow itself puts at the end of ``sys.path``, and no PYTHONPATH of ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.package.build import AIRFLOW_VERSIONS, PROJECT, build
from infra.setup.commands import LOCAL
from infra.setup.environments import uv_environment

pytestmark = pytest.mark.integration

UV = LOCAL / "venvs" / "uv" / "bin" / "uv"

CHECK = """
import importlib, json, sys
from pathlib import Path
import airflow
plugins = {plugins!r}
assert sys.path.count(plugins) == 1, sys.path
assert sys.path[-1] == plugins and not {{{project!r}, {project!r} + "/plugins"}} & set(sys.path), sys.path

# The triggerer has no DAGs on its path.
triggers = sorted(path.stem for path in Path(plugins, "strandloop", "triggers").glob("[a-z]*.py"))
for stem in triggers:
    importlib.import_module("strandloop.triggers." + stem)

from airflow import plugins_manager
plugins_manager.ensure_plugins_loaded()
assert not plugins_manager.get_import_errors(), plugins_manager.get_import_errors()
registered = [n for n, m in sys.modules.items() if str(getattr(m, "__file__", None)).startswith(plugins)]
assert all(name.startswith("strandloop") for name in registered), registered

from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
bag = DagBag({dags!r})
assert not bag.import_errors, bag.import_errors
for dag in bag.dags.values():
    again = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    assert set(again.task_dict) == set(dag.task_dict)

absent = ("ray", "torch", "transformers", "mpi4py")
assert not [name for name in absent if importlib.util.find_spec(name)]
for body in {bodies!r}:
    importlib.import_module("tasks." + body)

# What needs 3.3: a trigger is told that a person ended its task.
# And one is able to read what it noted before a restart.
from airflow.sdk.bases.xcom import BaseXCom
from airflow.triggers.base import BaseTrigger
from strandloop.triggers.slurm import SlurmJobTrigger
from strandloop.code_archive import archive_packages
print(json.dumps({{
    "airflow": airflow.__version__,
    "python": list(sys.version_info[:2]),
    "dags": sorted(bag.dags),
    "triggers": triggers,
    "artifact": archive_packages(["tasks", "hpc_jobs"]).sha256,
    "triggers are told": hasattr(BaseTrigger, "on_kill"),
    "bookmarks stay": hasattr(BaseXCom, "aget_one"),
    "trigger can stop": hasattr(SlurmJobTrigger, "on_kill"),
}}))
"""
BODIES = ["landing", "plan", "graph", "cost.report", "report.page", "learning.request"]

READ_IN_A_LOOP = """
import airflow
import asyncio
from strandloop.ssh_login import SshLogin
async def both():
    return await asyncio.gather(SshLogin.read("login"), SshLogin.read("login"))
first, second = asyncio.run(both())
assert first == second
print(first.host, first.port, first.user)
"""


@dataclass(frozen=True)
class Mwaa:
    """An environment with one version of Airflow, and the package installed as MWAA would."""

    version: str
    python: Path
    home: Path
    dist: Path

    def run(self, code: str, **variables: str) -> str:
        """Run code in a bare folder; gives the last line that it printed."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW", "STRANDLOOP", "PYTHON"))
        }
        environment |= {"AIRFLOW_HOME": str(self.home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", **variables}
        done = subprocess.run(
            [self.python, "-c", code],
            cwd=self.home,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module", params=AIRFLOW_VERSIONS)
def mwaa(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mwaa:
    home = tmp_path_factory.mktemp("mwaa")
    build(home / "dist")
    with zipfile.ZipFile(home / "dist" / "plugins.zip") as archive:
        archive.extractall(home / "plugins")
    shutil.copytree(home / "dist" / "dags", home / "dags")
    return Mwaa(request.param, environment(request.param, home / "dist"), home, home / "dist")


def environment(version: str, dist: Path) -> Path:
    """The Python of an environment with that Airflow and the package's requirements, built if they changed."""
    newest = version == AIRFLOW_VERSIONS[0]
    requirements = dist / "mwaa" / ("requirements.txt" if newest else f"requirements-{version}.txt")
    # Airflow's own constraints are on GitHub, which not every machine reaches; ours are as good as the same.
    _, wanted = requirements.read_text().split("\n", 1)
    constraints = PROJECT / "infra" / "mwaa" / f"constraints-{version}.txt"
    base = python_312()
    target = LOCAL / "venvs" / f"mwaa-{version}"
    stamp, state = target / "strandloop-requirements", f"{base}\n{wanted}{constraints.read_text()}"
    if not stamp.exists() or stamp.read_text() != hashlib.sha256(state.encode()).hexdigest():
        uv("venv", "--quiet", "--clear", "--python", base, str(target))
        install = ["pip", "install", "--quiet", "--python", str(target / "bin" / "python")]
        uv(
            *install,
            "--constraint",
            str(constraints),
            "--requirement",
            "-",
            f"apache-airflow=={version}",
            text=wanted,
        )
        stamp.write_text(hashlib.sha256(state.encode()).hexdigest())
    return target / "bin" / "python"


def python_312() -> str:
    """A Python as MWAA has it; where there is none, the one that runs the tests, and a warning."""
    found = uv("python", "find", "--no-project", "3.12", check=False) or uv(
        "python", "install", "3.12", check=False
    )
    if found := found or uv("python", "find", "--no-project", "3.12", check=False):
        return found
    warnings.warn(
        f"no Python 3.12 can be had here: MWAA's versions of Airflow are tested with {sys.version.split()[0]}",
        stacklevel=2,
    )
    return getattr(sys, "_base_executable", sys.executable)


def uv(*arguments: str, text: str = "", check: bool = True) -> str:
    """What uv printed; empty where it failed and need not succeed."""
    done = subprocess.run(
        [UV, *arguments],
        input=text,
        # pyenv's python3.12 runs where that version is asked for.
        env={"PYENV_VERSION": "3.12", **uv_environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip() if done.returncode == 0 else ""


def test_all_loads_with_nothing_but_the_package(mwaa: Mwaa) -> None:
    folders = {"plugins": str(mwaa.home / "plugins"), "dags": str(mwaa.home / "dags")}
    found = json.loads(mwaa.run(CHECK.format(**folders, project=str(PROJECT), bodies=BODIES)))
    assert found["airflow"] == mwaa.version
    assert set(found["dags"]) >= {"genomics_batch", "encoder_retraining"}
    assert set(found["triggers"]) >= {"ray_jobs", "slurm", "s3_key"}
    # What 3.2 lacks, and what that means there, is in infra/README.md and in the operators' docstrings.
    assert found["trigger can stop"]
    assert found["triggers are told"] == found["bookmarks stay"] == (mwaa.version >= "3.3")
    # What the Ray operator sends from there is the artifact that the nodes of a Slurm cluster install.
    assert (mwaa.dist / f"code-{found['artifact'][:32]}.zip").exists()


def test_connections_can_be_read_from_a_triggers_loop(mwaa: Mwaa) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3Fwz0Uhz2SNSbHVDL5+pXQGqX5cUvUZ2dGFCs9rkHj"
    login = {
        "conn_type": "ssh",
        "host": "login.example",
        "port": 2222,
        "login": "anna",
        "extra": {"host_key": key},
    }
    assert mwaa.run(READ_IN_A_LOOP, AIRFLOW_CONN_LOGIN=json.dumps(login)) == "login.example 2222 anna"
