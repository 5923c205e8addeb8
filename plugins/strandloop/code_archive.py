"""The code that a remote job runs: importable packages of this machine as one reproducible zip.

Equal sources give equal bytes, on every machine: members are sorted, and their dates and modes are fixed. Nothing
is compressed, for two versions of zlib would give two archives, and it is about a megabyte.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strandloop.errors import InvalidJob

# The first date that a zip can hold: a real one would give another hash on every machine.
EPOCH = (1980, 1, 1, 0, 0, 0)
REGULAR_FILE = 0o100644 << 16


@dataclass(frozen=True)
class CodeArchive:
    """A zip whose members start with the top-level package name, so that ``import tasks`` works beside it."""

    content: bytes

    @property
    def sha256(self) -> str:
        """Checksum of the content, in hex."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def name(self) -> str:
        """File name in Ray's form; it holds the hash of the content, so equal code is stored once."""
        return f"_ray_pkg_{self.sha256[:32]}.zip"

    @property
    def uri(self) -> str:
        """What ``runtime_env["working_dir"]`` takes."""
        return f"gcs://{self.name}"


def archive_packages(packages: Sequence[str]) -> CodeArchive:
    """Zip importable top-level packages or modules; none of them is imported.

    Left out are byte code, what was compiled for this machine, and everything hidden.

    :raises InvalidJob: if a name is dotted, or nothing of that name can be imported.
    """
    return CodeArchive(zipped({member: path for package in packages for member, path in _members(package)}))


def zipped(members: Mapping[str, Path]) -> bytes:
    """The bytes of a zip with these files under these names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression=zipfile.ZIP_STORED) as archive:
        for member in sorted(members):
            entry = zipfile.ZipInfo(member, date_time=EPOCH)
            entry.external_attr = REGULAR_FILE
            archive.writestr(entry, members[member].read_bytes())
    return buffer.getvalue()


def sources(folder: Path, *, under: str = "") -> Iterator[tuple[str, Path]]:
    """What of a folder belongs into an archive: names in it, which begin with ``under``, and files."""
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(_left_out(part) for part in parts):
            yield "/".join((under, *parts) if under else parts), path


def _members(package: str) -> Iterator[tuple[str, Path]]:
    if not package.isidentifier():
        raise InvalidJob(f"packages: {package!r} is not the name of a top-level package")
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise InvalidJob(
            f"packages: no package {package!r} can be imported here; put it beside the plugins, "
            "or on PYTHONPATH where that may be set"
        )
    if spec.submodule_search_locations is None:
        if spec.origin is None or not Path(spec.origin).is_file():
            raise InvalidJob(f"packages: {package!r} is built into Python and has no file to send")
        yield Path(spec.origin).name, Path(spec.origin)
        return
    for root in map(Path, spec.submodule_search_locations):
        yield from sources(root, under=package)


def _left_out(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__" or name.endswith((".pyc", ".pyo", ".so"))
