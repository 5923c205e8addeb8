import json
import socket
from pathlib import Path

import pytest

from infra.local.layout import StackError
from infra.local.ports import DEFAULT_PORTS, Ports


def test_an_option_wins_over_the_environment_that_over_the_record_that_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = tmp_path / "ports.json"
    recorded.write_text(json.dumps({"s3": 2001, "ssh": 2002, "ray": 2003}))
    monkeypatch.setenv("STRANDLOOP_PORT_SSH", "3002")
    monkeypatch.setenv("STRANDLOOP_PORT_RAY", "3003")

    ports = Ports.choose(recorded, options=["ray=4003"])

    assert (ports["s3"], ports["ssh"], ports["ray"]) == (2001, 3002, 4003)
    assert ports["moto"] == DEFAULT_PORTS["moto"]


def test_what_was_saved_is_chosen_again(tmp_path: Path) -> None:
    first = Ports.choose(tmp_path / "ports.json", free=True)
    first.save(tmp_path / "ports.json")
    assert Ports.choose(tmp_path / "ports.json", free=True) == first
    assert len(set(first.numbers.values())) == len(DEFAULT_PORTS)


def test_a_taken_port_is_named_with_the_way_to_change_it(tmp_path: Path) -> None:
    ports = Ports.choose(tmp_path / "none", free=True)
    assert ports.taken(["s3", "ray-dashboard"]) == []
    with socket.create_server(("127.0.0.1", ports["ray-dashboard"])):
        (line,) = ports.taken(["s3", "ray-dashboard"])
    assert str(ports["ray-dashboard"]) in line
    assert "--port ray-dashboard=NUMBER" in line
    assert "STRANDLOOP_PORT_RAY_DASHBOARD=NUMBER" in line


@pytest.mark.parametrize("option", ["s3", "s3=", "s3=web", "s3=80", "s3=70000", "telnet=2000"])
def test_a_port_that_cannot_be_is_refused_with_its_source(tmp_path: Path, option: str) -> None:
    with pytest.raises(StackError, match=f"--port {option}"):
        Ports.choose(tmp_path / "none", options=[option])
