"""Builds ``dist/``: the same sources give the same bytes, on every machine.

========================== =============================================================================
``plugins.zip``            for MWAA: contents of ``plugins/``, and beside them ``tasks/`` and ``hpc_jobs/``
``dags/``                  for MWAA: the DAG files
``mwaa/requirements.txt``  for MWAA, with constraints; ``requirements-VERSION.txt`` for an older Airflow
``mwaa/startup.sh``        for MWAA: builds ParallelCluster's environment
``code-HASH.zip``          ``tasks/`` and ``hpc_jobs/``: what nodes of a Slurm cluster install; the Ray operator
                           sends the same bytes to Ray
``NAME-HASH.sh``           custom actions of ParallelCluster: ``node-environment`` installs that code,
                           ``slurm-budget`` tells Slurm the cluster's budget
========================== =============================================================================

MWAA unpacks ``plugins.zip`` into a folder on ``sys.path``, where PYTHONPATH cannot be set; so what DAGs import
stands at its root.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from infra.setup.environments import UV_VERSION
from strandloop.code_archive import CodeArchive, sources, zipped

PROJECT = Path(__file__).resolve().parents[2]
DIST = PROJECT / "dist"
CODE = ("tasks", "hpc_jobs")
CUSTOM_ACTIONS = ("hpc_jobs/node_environment.sh", "infra/parallelcluster/slurm_budget.sh")
#: Versions of Airflow on MWAA that this runs on, the one to aim at first; all of them on Python 3.12.
AIRFLOW_VERSIONS = ("3.3.1", "3.2.1")


def build(target: Path = DIST) -> list[Path]:
    """Write the packages into ``target``, which is emptied before; gives the files, sorted."""
    shutil.rmtree(target, ignore_errors=True)
    code = [member for package in CODE for member in sources(PROJECT / package, under=package)]
    plugins = sources(PROJECT / "plugins")
    hidden = (".airflowignore", PROJECT / "plugins" / ".airflowignore")
    archive = CodeArchive(zipped(dict(code)))
    contents = {
        "plugins.zip": zipped(dict([*plugins, hidden, *code])),
        **{f"dags/{path.name}": path.read_bytes() for path in (PROJECT / "dags").glob("*.py")},
        **{f"mwaa/{name}": text.encode() for name, text in _requirements().items()},
        "mwaa/startup.sh": _startup_script().encode(),
        f"code-{archive.sha256[:32]}.zip": archive.content,
    }
    for script in CUSTOM_ACTIONS:
        content = (PROJECT / script).read_bytes()
        name = f"{Path(script).stem.replace('_', '-')}-{hashlib.sha256(content).hexdigest()[:32]}.sh"
        contents[name] = content
    for name, content in contents.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return sorted(target / name for name in contents)


def _requirements() -> dict[str, str]:
    wanted = (PROJECT / "infra" / "mwaa" / "requirements.in").read_text()
    published = "https://raw.githubusercontent.com/apache/airflow"
    return {
        "requirements.txt" if version == AIRFLOW_VERSIONS[0] else f"requirements-{version}.txt": (
            f'--constraint "{published}/constraints-{version}/constraints-3.12.txt"\n{wanted}'
        )
        for version in AIRFLOW_VERSIONS
    }


def _startup_script() -> str:
    script = (PROJECT / "infra" / "mwaa" / "startup.sh").read_text()
    pinned = (PROJECT / "infra" / "parallelcluster" / "requirements.txt").read_text()
    return script.replace("@UV_VERSION@", UV_VERSION).replace("@REQUIREMENTS@\n", pinned)
