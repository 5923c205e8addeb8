import sys
from pathlib import Path

import pytest

from infra.setup import environments
from infra.setup.environments import VirtualEnvironment, uv_environment


def test_pips_settings_are_said_to_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_STRATEGY", "UV_SYSTEM_CERTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://extra.example/simple")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    env = uv_environment()
    assert env["UV_FIND_LINKS"] == "/wheels"
    assert env["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert env["UV_INDEX"] == "https://extra.example/simple"
    assert env["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert env["UV_SYSTEM_CERTS"] == "1"


def test_an_environment_is_current_until_its_requirements_change(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("")
    environment = VirtualEnvironment(tmp_path / "env", requirements)
    assert not environment.is_current()
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").symlink_to(sys.executable)
    environment.build(Path("/bin/true"))  # stands for a uv with nothing to do
    assert environment.is_current()
    requirements.write_text("numpy\n")
    assert not environment.is_current()


def test_a_cpu_wheel_at_hand_needs_no_other_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments.shutil, "which", lambda name: None)
    monkeypatch.setattr(environments, "_answers", lambda url: True)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert environments._torch_options() == ["--torch-backend", "cpu"]
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    (tmp_path / f"torch-2.13.0+cpu-{tag}-{tag}-manylinux_2_28_x86_64.whl").touch()
    assert environments._torch_options() == []
