import io
import os
import sys
import zipfile
from pathlib import Path

import pytest

from strandloop.code_archive import archive_packages
from strandloop.errors import InvalidJob


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path with a package, its leftovers, and a module; importing any of it raises."""
    files = {
        "parcel/__init__.py": "raise RuntimeError('imported')",
        "parcel/inner/kernel.c": "int main;",
        "parcel/inner/__init__.py": "",
        "parcel/__pycache__/x.cpython-311.pyc": "",
        "parcel/.cache/x": "",
        "parcel/inner/kernel-x86_64.so": "",
        "lone_module.py": "raise RuntimeError('imported')",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def members(content: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(content)).namelist()


def test_it_holds_the_sources_below_the_package_name_and_imports_nothing(code: Path) -> None:
    archive = archive_packages(["parcel", "lone_module"])
    assert members(archive.content) == [
        "lone_module.py",
        "parcel/__init__.py",
        "parcel/inner/__init__.py",
        "parcel/inner/kernel.c",
    ]
    assert "parcel" not in sys.modules


def test_equal_sources_give_equal_bytes_whatever_their_dates_modes_and_order(code: Path) -> None:
    first = archive_packages(["parcel", "lone_module"])
    os.utime(code / "parcel/inner/kernel.c", (0, 0))
    (code / "lone_module.py").chmod(0o700)
    (code / "parcel/__pycache__/y.pyc").touch()
    again = archive_packages(["lone_module", "parcel"])
    assert again.content == first.content
    assert again.uri == first.uri == f"gcs://{first.name}"


def test_other_sources_give_another_name(code: Path) -> None:
    first = archive_packages(["parcel"])
    (code / "parcel/inner/kernel.c").write_text("int mein;")
    assert archive_packages(["parcel"]).name != first.name
    assert first.name.startswith("_ray_pkg_")
    assert first.name.endswith(".zip")


@pytest.mark.parametrize("name", ["no_such_package", "parcel.inner", "../parcel", "sys"])
def test_what_cannot_be_sent_is_refused_by_name(code: Path, name: str) -> None:
    with pytest.raises(InvalidJob, match=name.replace(".", r"\.")):
        archive_packages([name])


def test_the_bytes_do_not_depend_on_the_version_of_zlib(code: Path) -> None:
    archive = zipfile.ZipFile(io.BytesIO(archive_packages(["parcel"]).content))
    assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
