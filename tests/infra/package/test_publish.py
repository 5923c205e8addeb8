"""The upload creates objects and never overwrites one."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.package.__main__ import main
from infra.package.publish import keys, publish
from tasks.errors import StorageError
from tasks.object_store import ObjectStore, ObjectUri


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """Packages by their names; what is in them does not matter here."""
    for name in ("plugins.zip", "dags/a.py", "mwaa/startup.sh", "mwaa/requirements.txt", "code-12.zip"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"content of {name}")
    return tmp_path


def test_the_second_upload_finds_all_there(s3_root: str, dist: Path) -> None:
    store, bucket = ObjectStore(), ObjectUri.parse(s3_root)
    first = list(publish(dist, bucket, store))
    assert all(done.is_new for done in first)
    assert {done.uri.key.partition("/")[0] for done in first} == {"code", "mwaa"}
    assert [store.get_bytes(done.uri) for done in first] == [done.path.read_bytes() for done in first]
    before = {info.uri: info.etag for info in store.list(bucket)}
    again = list(publish(dist, bucket, store))
    assert not any(done.is_new for done in again)
    assert {info.uri: info.etag for info in store.list(bucket)} == before


def test_a_release_for_mwaa_is_one_folder_of_what_goes_together(dist: Path) -> None:
    before = keys(dist)
    (release,) = {key.rpartition("/")[0] for key in before if key.endswith("/plugins.zip")}
    assert {key.removeprefix(release) for key in before if key.startswith(release)} == {
        *("/plugins.zip", "/dags/a.py", "/startup.sh", "/requirements.txt")
    }
    (dist / "dags" / "a.py").write_text("another DAG")
    after = keys(dist)
    assert before.keys() & after.keys() == {"code/code-12.zip"}


def test_an_object_that_somebody_wrote_by_hand_stays_and_is_named(s3_root: str, dist: Path) -> None:
    store, bucket = ObjectStore(), ObjectUri.parse(s3_root) / "team"
    uri = bucket / "code/code-12.zip"
    store.put_bytes(uri, b"mine")
    with pytest.raises(StorageError, match=r"team/code/code-12\.zip holds something else"):
        list(publish(dist, bucket, store))
    assert store.get_bytes(uri) == b"mine"


def test_the_command_says_what_is_new(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from infra.package import __main__ as command
    from infra.package import build

    monkeypatch.setattr(command, "DIST", tmp_path / "dist")
    monkeypatch.setattr(command, "build", lambda: build.build(tmp_path / "dist"))
    bucket = s3_root.removeprefix("s3://")
    assert main(["publish", bucket]) == 0
    first = capsys.readouterr().out.splitlines()
    assert {line.split("  ")[0] for line in first} == {"uploaded"}
    assert main(["publish", bucket]) == 0
    again = capsys.readouterr().out.splitlines()
    assert again == [line.replace("uploaded", "was there") for line in first]
    assert main(["publish", f"{bucket}-of-nobody"]) == 1
    assert f"s3://{bucket}-of-nobody/code/" in capsys.readouterr().err
