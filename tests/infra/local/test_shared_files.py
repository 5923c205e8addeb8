import os
import subprocess
from pathlib import Path

import pytest

from infra.local.layout import Layout
from infra.local.ports import DEFAULT_PORTS, Ports
from infra.local.processes import Processes
from infra.local.shared_files import SharedFiles


@pytest.fixture
def shared(tmp_path: Path) -> SharedFiles:
    project = tmp_path / "project"
    for name, text in {"hpc_jobs/store.py": "one", "tasks/landing.py": "one", "tasks/x.so": "built"}.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    python = project / ".local/fsx/strandloop/env/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    layout = Layout(tmp_path / "state", project)
    layout.home.mkdir(parents=True)
    return SharedFiles(layout, Ports(DEFAULT_PORTS), Processes(records=tmp_path, logs=tmp_path, mark="none"))


def test_both_packages_arrive_without_built_files(shared: SharedFiles) -> None:
    assert shared.problem() is not None
    shared.start()
    assert shared.settled()
    code = shared.layout.home / "code"
    found = sorted(str(path.relative_to(code)) for path in code.rglob("*") if path.is_file())
    assert found == ["hpc_jobs/store.py", "tasks/landing.py"]


def test_a_changed_file_is_deployed_and_the_former_copy_stays_for_running_jobs(shared: SharedFiles) -> None:
    shared.start()
    former = (shared.layout.home / "code").resolve()
    for text in ("two", "three"):
        (shared.layout.project / "tasks/landing.py").write_text(text)
        assert not shared.settled()
        previous = (shared.layout.home / "code").resolve()
        shared.start()
    assert (shared.layout.home / "code/tasks/landing.py").read_text() == "three"
    assert (previous / "tasks/landing.py").read_text() == "two"
    assert not former.exists()


def test_the_job_environment_can_be_sourced(shared: SharedFiles) -> None:
    shared.start()
    script = f". {shared.layout.home}/environment.sh; echo $AWS_ENDPOINT_URL $OMPI_MCA_btl_tcp_if_include"
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env={})
    assert shown.stdout.split() == [f"http://127.0.0.1:{DEFAULT_PORTS['s3']}", "lo"]
    root_only = "OMPI_ALLOW_RUN_AS_ROOT" in (shared.layout.home / "environment.sh").read_text()
    assert root_only == (os.getuid() == 0)
