"""Build ``plugins.zip`` for Amazon MWAA: ``python -m infra.mwaa.plugins_zip plugins.zip``.

MWAA unpacks the archive into its plugins folder, which is on ``sys.path``; PYTHONPATH cannot be set there. So
the contents of ``plugins/`` (``.airflowignore`` included) and the packages ``tasks`` and ``hpc_jobs`` stand at
its root. The same sources give the same bytes, so an unchanged archive needs no environment update.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIRST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
LEFT_OUT = {".pyc", ".so", ".png"}


def build(target: Path) -> list[str]:
    """Write the archive; gives the names in it, sorted."""
    entries = dict(sorted(_entries()))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in entries.items():
            info = zipfile.ZipInfo(name, FIRST_ZIP_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, path.read_bytes())
    return list(entries)


def _entries() -> Iterator[tuple[str, Path]]:
    for folder, base in (("plugins", "plugins"), ("tasks", "."), ("hpc_jobs", ".")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in LEFT_OUT:
                yield path.relative_to(ROOT / base).as_posix(), path


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.mwaa.plugins_zip", description="Build plugins.zip for Amazon MWAA."
    )
    parser.add_argument("target", type=Path, help="the archive to write")
    target = parser.parse_args().target
    names = build(target)
    print(f"{target}: {len(names)} files, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
