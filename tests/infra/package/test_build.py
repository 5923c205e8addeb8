"""What is in the packages, and that the same sources always give the same bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from infra.package import build
from strandloop.code_archive import archive_packages


@pytest.fixture
def built(tmp_path: Path) -> Path:
    build.build(tmp_path / "dist")
    return tmp_path / "dist"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_another_checkout_gives_the_same_bytes(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other dates, modes and leftovers, and over what an older build left."""
    other = tmp_path / "other"
    for folder in ("plugins", "tasks", "hpc_jobs", "dags", "infra"):
        shutil.copytree(build.PROJECT / folder, other / folder, copy_function=shutil.copyfile, symlinks=True)
    os.utime(other / "tasks" / "plan.py", (0, 0))
    (other / "tasks" / "plan.py").chmod(0o700)
    (other / "hpc_jobs" / "mpi_dna_seq" / "topk-sparc-0.so").touch()
    (other / "tasks" / ".plan.py.swp").touch()
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "code-0.zip").touch()
    monkeypatch.setattr(build, "PROJECT", other)
    names = build.build(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(built)
    assert names == sorted(path for path in (tmp_path / "again").rglob("*") if path.is_file())


def test_a_changed_source_gives_another_artifact(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    for folder in ("plugins", "tasks", "hpc_jobs", "dags", "infra"):
        shutil.copytree(build.PROJECT / folder, other / folder)
    with (other / "hpc_jobs" / "mpi_dna_seq" / "compare.c").open("a") as source:
        source.write("\n")
    monkeypatch.setattr(build, "PROJECT", other)
    build.build(tmp_path / "again")
    changed = contents(tmp_path / "again").keys() ^ contents(built).keys()
    assert [name.partition("-")[0] for name in sorted(changed)] == ["code", "code"]


def test_the_artifact_is_what_the_ray_operator_sends(built: Path) -> None:
    (artifact,) = built.glob("code-*.zip")
    archive = archive_packages(["tasks", "hpc_jobs"])
    assert artifact.read_bytes() == archive.content
    assert artifact.name == f"code-{hashlib.sha256(archive.content).hexdigest()[:32]}.zip"
    assert archive.name.endswith(artifact.name.removeprefix("code-"))


def test_plugins_zip_holds_at_its_root_what_dags_import(built: Path) -> None:
    names = zipfile.ZipFile(built / "plugins.zip").namelist()
    assert {".airflowignore", "strandloop_plugin.py", "strandloop/operators/slurm.py"} <= set(names)
    assert {"tasks/__init__.py", "hpc_jobs/mpi_dna_seq.sbatch", "hpc_jobs/node_environment.sh"} <= set(names)
    assert not [name for name in names if name.startswith("plugins/") or name.endswith((".so", ".pyc"))]


def test_requirements_begin_with_the_constraints_of_their_airflow(built: Path) -> None:
    for name, version in (("requirements.txt", "3.3.1"), ("requirements-3.2.1.txt", "3.2.1")):
        first = (built / "mwaa" / name).read_text().splitlines()[0]
        assert first == (
            '--constraint "https://raw.githubusercontent.com/apache/airflow/'
            f'constraints-{version}/constraints-3.12.txt"'
        )


def test_scripts_are_complete(built: Path) -> None:
    startup = (built / "mwaa" / "startup.sh").read_text()
    assert "\naws-parallelcluster==" in startup
    assert not [line for line in startup.splitlines() if line.startswith("@") or "==@" in line]
    for script in [*built.glob("*.sh"), built / "mwaa" / "startup.sh"]:
        subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize(
    ("component", "expected"),
    [("webserver", "went on: none\n"), ("worker", "went on: none\n"), ("scheduler", "went on: there\n")],
)
def test_the_startup_script_never_ends_the_shell_that_sources_it(
    built: Path, tmp_path: Path, component: str, expected: str
) -> None:
    """A worker whose Python cannot make environments; a scheduler that has one already."""
    if component == "scheduler":
        (tmp_path / "pcluster").mkdir()
        (tmp_path / "pcluster" / "complete").touch()
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    found = "${STRANDLOOP_PCLUSTER_PYTHON:+there}"
    command = (
        f'source "{built}/mwaa/startup.sh" >/dev/null; found="{found}"; echo "went on: ${{found:-none}}"'
    )
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "AIRFLOW_HOME": str(tmp_path),
            "MWAA_AIRFLOW_COMPONENT": component,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == expected
    assert ("could not be installed" in done.stderr) == (component == "worker")
