"""The DAG files as Airflow sees them: they load fast and light, mean what they say, and survive serialisation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from strandloop.pcluster_state import read_configuration
from strandloop.run_tag import RunTag
from tasks.object_store import ObjectStore, ObjectUri
from tests.tasks.cluster_examples import MINIMAL

ROOT = Path(__file__).parents[2]
DAG_FILES = sorted((ROOT / "dags").glob("*.py"))
HEAVY = {"ray", "torch", "numpy", "pandas", "pyarrow", "transformers", "sklearn", "matplotlib", "igraph"}


def run_python(code: str, *, path: list[Path], tmp_path: Path) -> str:
    """Run ``code`` in a clean interpreter with its own Airflow home; gives the last line that it printed."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "STRANDLOOP"))
    } | {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": os.pathsep.join(map(str, path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("dag_file", DAG_FILES, ids=lambda path: path.stem)
def test_a_dag_file_loads_in_under_a_second_and_loads_nothing_heavy(dag_file: Path, tmp_path: Path) -> None:
    """CPU seconds beyond what Airflow's own DAG processor has loaded; wall time would measure the machine."""
    answer = run_python(
        "import json, runpy, sys, time\n"
        "import airflow.sdk, airflow.dag_processing.dagbag\n"
        "before, started = set(sys.modules), time.process_time()\n"
        f"runpy.run_path({str(dag_file)!r})\n"
        "seconds = time.process_time() - started\n"
        "print(json.dumps([seconds, sorted({name.split('.')[0] for name in set(sys.modules) - before})]))",
        path=[ROOT, ROOT / "plugins"],
        tmp_path=tmp_path,
    )
    seconds, loaded = json.loads(answer)
    assert not HEAVY & set(loaded)
    assert seconds < 1.0


LOAD_EVERYTHING = """
import json
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
bag = DagBag({dags!r})
assert not bag.import_errors, bag.import_errors
for dag in bag.dags.values():
    once = DagSerialization.to_dict(dag)
    again = DagSerialization.from_dict(json.loads(json.dumps(once)))
    assert set(again.task_dict) == set(dag.task_dict)
    for task_id, task in dag.task_dict.items():
        assert again.task_dict[task_id].downstream_task_ids == task.downstream_task_ids
print(json.dumps({{dag_id: sorted(dag.task_dict) for dag_id, dag in bag.dags.items()}}))
"""

GENOMICS_BATCH = {
    "wait_for_landing",
    "validate_batch",
    "plan_batch",
    "embed_reads",
    "cluster_configuration",
    "cluster_may_start",
    "ensure_cluster",
    "release_cluster",
    "stage_embeddings",
    "submit_similarity",
    "wait_similarity",
    "verify_overlaps",
    "align_pairs",
    "collect_graph",
    "publish_graph",
    "drift",
    "cost_report",
    "report",
}


def test_the_dags_load_without_errors_and_survive_serialisation(tmp_path: Path) -> None:
    answer = run_python(
        LOAD_EVERYTHING.format(dags=str(ROOT / "dags")), path=[ROOT, ROOT / "plugins"], tmp_path=tmp_path
    )
    dags = json.loads(answer)
    assert set(dags["genomics_batch"]) == GENOMICS_BATCH
    assert set(dags["encoder_retraining"]) == {
        "training_jobs",
        "retrain",
        "outcomes",
        "proposals",
        "approve",
        "promote",
        "batches_to_reembed",
        "reembed",
    }
    assert set(dags["cluster_reaper"]) == {"find_leftovers", "remove_leftovers"}


def test_daily_runs_do_not_hold_each_other_up_and_the_alignment_may_be_left_out(tmp_path: Path) -> None:
    """A run may wait for its landing. The alignment, skipped, must not skip what comes after it; what fails
    before it must."""
    answer = run_python(
        "import json, runpy\n"
        f"dag = runpy.run_path({str(ROOT / 'dags' / 'genomics_batch.py')!r})['genomics_batch']()\n"
        "after = dag.task_dict['align_pairs'].downstream_task_ids\n"
        "rules = {name: dag.task_dict[name].trigger_rule for name in after}\n"
        "print(json.dumps([dag.max_active_runs, dag.catchup, dag.schedule, rules]))",
        path=[ROOT, ROOT / "plugins"],
        tmp_path=tmp_path,
    )
    runs, catchup, schedule, rules = json.loads(answer)
    assert runs > 1
    assert (catchup, schedule) == (False, "@daily")
    assert rules == {"collect_graph": "none_failed", "cost_report": "none_failed"}


def test_plugins_zip_is_all_that_mwaa_needs(tmp_path: Path) -> None:
    """In a bare folder, with only the archive on the path, every DAG loads, every trigger imports."""
    from infra.package.build import build

    build(tmp_path / "dist")
    plugins = tmp_path / "bare" / "plugins"
    with zipfile.ZipFile(tmp_path / "dist" / "plugins.zip") as archive:
        archive.extractall(plugins)
    triggers = [path.stem for path in (plugins / "strandloop" / "triggers").glob("[a-z]*.py")]
    assert len(triggers) >= 3
    imports = "".join(f"import strandloop.triggers.{stem}\n" for stem in triggers)
    answer = run_python(
        imports + LOAD_EVERYTHING.format(dags=str(tmp_path / "dist" / "dags")),
        path=[plugins],
        tmp_path=tmp_path,
    )
    assert set(json.loads(answer)) == {"genomics_batch", "encoder_retraining", "cluster_reaper"}


BODIES = [
    "landing",
    "plan",
    "graph",
    "drift.measure",
    "cost.report",
    "report.page",
    "learning.request",
    "learning.proposals",
    "reembedding",
    "reaper",
    "cluster_start",
    "cluster_spec",
]


def test_the_bodies_that_run_on_a_worker_need_nothing_that_mwaa_lacks(tmp_path: Path) -> None:
    """Ray, PyTorch and MPI are on clusters; numba and isal are where reads are parsed."""
    answer = run_python(
        "import importlib, sys\n"
        "absent = ('ray', 'torch', 'transformers', 'mpi4py', 'numba', 'isal')\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        f"for body in {BODIES}:\n"
        "    importlib.import_module(f'tasks.{body}')\n"
        "print('all imported')",
        path=[ROOT],
        tmp_path=tmp_path,
    )
    assert answer == "all imported"


def test_airflow_registers_the_plugin_module_only(tmp_path: Path) -> None:
    """Without plugins/.airflowignore every file below plugins/ would be executed under its bare stem."""
    answer = run_python(
        "import json, os, sys\n"
        f"os.environ['AIRFLOW__CORE__PLUGINS_FOLDER'] = {str(ROOT / 'plugins')!r}\n"
        "from airflow import plugins_manager\n"
        "plugins_manager.ensure_plugins_loaded()\n"
        "assert not plugins_manager.get_import_errors()\n"
        "print(json.dumps(sorted(name for name, module in sys.modules.items() "
        f"if str(getattr(module, '__file__', None)).startswith({str(ROOT / 'plugins')!r}))))",
        path=[ROOT, ROOT / "plugins"],
        tmp_path=tmp_path,
    )
    registered = json.loads(answer)
    assert "strandloop_plugin" in registered
    assert all(name.startswith("strandloop") for name in registered)


def test_the_variable_and_the_run_make_the_cluster_s_configuration(tmp_path: Path, s3_root: str) -> None:
    archive, script = f"{s3_root}/code/code-1.zip", f"{s3_root}/code/node-environment-1.sh"
    for uri in (archive, script):
        ObjectStore().put_bytes(ObjectUri.parse(uri), b"")
    fields = {**MINIMAL, "code": {**MINIMAL["code"], "archive": archive, "node_environment": script}}
    fields = {name: value for name, value in fields.items() if name not in ("name", "data_uri")}
    answer = run_python(
        "import json, os, runpy\n"
        "from types import SimpleNamespace\n"
        f"os.environ['AIRFLOW_VAR_STRANDLOOP_CLUSTER'] = {json.dumps(fields)!r}\n"
        f"dag = runpy.run_path({str(ROOT / 'dags' / 'genomics_batch.py')!r})['genomics_batch']()\n"
        "configure = dag.task_dict['cluster_configuration'].python_callable\n"
        "ti = SimpleNamespace(dag_id='genomics_batch', run_id='manual__1')\n"
        "print(json.dumps([configure('s3://data', params={'cluster': choice}, ti=ti) "
        "for choice in ('existing', 'parallelcluster')]))",
        path=[ROOT, ROOT / "plugins"],
        tmp_path=tmp_path,
    )
    nothing, text = json.loads(answer)
    assert nothing == ""
    configuration = read_configuration(text)
    tags = {tag["Key"]: tag["Value"] for tag in configuration["Tags"]}
    assert RunTag.of_tags(tags) == RunTag("genomics_batch", "manual__1")
    assert configuration["Scheduling"]["Scheduler"] == "slurm"
