"""Which files belong together: samples and pairs, by the names that sequencing centres give them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.landing.manifest import SAMPLE_NAME, SAMPLE_NAME_RULE

_SUFFIX = re.compile(r"\.(fastq|fq|fasta|fas|fa|fna|bam|ubam)(\.(gz|bgz|bgzf|zst|zstd))?$", re.IGNORECASE)
# lane_R1_001, lane_R1, lane.1, lane_1, lane_read1, read1, R1: what is before the mate's number, and the number
_MATE = re.compile(r"(?P<before>.+[._-](?:R|read)?|R|read)(?P<mate>[12])(?P<after>_001)?", re.IGNORECASE)
_MARK = re.compile(r"[._-](R|read)?$", re.IGNORECASE)
_SAYS_NOTHING = {"r", "read", "reads"}  # a sample is then called after the folder


@dataclass(frozen=True)
class Library:
    """One sample's files: one, or the two of a pair in the order R1, R2.

    :param layout: ``single``, ``paired`` or ``interleaved``.
    """

    sample: str
    paths: tuple[Path, ...]
    layout: str


def group_files(
    paths: Sequence[Path], *, sample: str | None = None, interleaved: bool = False
) -> tuple[list[Library], list[str]]:
    """Find pairs by name, name the samples after their files; libraries by sample name, and every problem.

    :param sample: a name for the one file, or the one pair, that is given.
    :param interleaved: each of the files holds both mates of its pairs, whatever it is called.
    """
    problems = [f"{path} is given {n} times" for path, n in Counter(paths).items() if n > 1]
    problems += [f"{path} is not a file" for path in paths if not path.is_file()]
    distinct = list(dict.fromkeys(paths))
    libraries = [_alone(path, "interleaved") for path in distinct] if interleaved else _libraries(distinct)
    if sample is not None:
        if len(libraries) > 1:
            problems.append(
                f"--sample names one file or one pair, but these are {len(libraries)} samples: "
                f"{', '.join(sorted(library.sample for library in libraries))}"
            )
        libraries = [replace(library, sample=sample) for library in libraries[:1]]
    for library in libraries:
        if not SAMPLE_NAME.fullmatch(library.sample):
            problems.append(
                f"{library.sample!r} cannot name a sample: use {SAMPLE_NAME_RULE}; rename the file, or name the "
                "sample with --sample"
            )
        if library.layout == "paired" and library.paths[0].name == library.paths[1].name:
            problems.append(
                f"both files of {library.sample!r} are called {library.paths[0].name}; rename one"
            )
    for name, count in Counter(library.sample for library in libraries).items():
        if count > 1:
            problems.append(f"{count} samples would be called {name!r}; rename their files")
    return sorted(libraries, key=lambda library: library.sample), problems


def _libraries(paths: list[Path]) -> list[Library]:
    mates: dict[tuple[Path, str, str], dict[str, Path]] = {}
    for path in paths:
        if found := _MATE.fullmatch(_stem(path)):
            pair = mates.setdefault((path.parent, found["before"], found["after"] or ""), {})
            pair[found["mate"]] = path
    libraries = [
        Library(_sample(folder, _MARK.sub("", before)), (pair["1"], pair["2"]), "paired")
        for (folder, before, _), pair in mates.items()
        if len(pair) == 2
    ]
    paired = {path for library in libraries for path in library.paths}
    return libraries + [_alone(path, "single") for path in paths if path not in paired]


def _alone(path: Path, layout: str) -> Library:
    return Library(_sample(path.parent, _stem(path)), (path,), layout)


def _stem(path: Path) -> str:
    return _SUFFIX.sub("", path.name)


def _sample(folder: Path, name: str) -> str:
    return folder.resolve().name if name.lower() in _SAYS_NOTHING else name
