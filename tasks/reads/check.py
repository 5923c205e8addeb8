"""What would become of a sample's files, before they are landed: the accounting that the job would give."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tasks.errors import StrandloopError
from tasks.reads.accounting import QualityAccounting
from tasks.reads.block import QuarantinedRecord
from tasks.reads.duplicates import SeenSequences
from tasks.reads.inspection import find_quality_encoding
from tasks.reads.layouts import QUALITY_OFFSETS
from tasks.reads.quality import QualityFilter
from tasks.reads.sources import sample_blocks


@dataclass
class Check:
    """What was found.

    :param quality_encoding: that the files were read with, or None where they cannot be opened.
    :param accounting: of all records up to the first error.
    :param errors: why a file could not be read to its end, or why the files do not go together.
    """

    files: list[str]
    layout: str
    quality_encoding: str | None = None
    accounting: QualityAccounting = field(default_factory=QualityAccounting)
    quarantined: list[QuarantinedRecord] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Nothing was quarantined and nothing went wrong; reads may have been rejected."""
        return not self.quarantined and not self.errors

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``records`` = ``kept`` + all ``rejected`` + the number of ``quarantined``."""
        counts = self.accounting
        return {
            "files": self.files,
            "layout": self.layout,
            "quality_encoding": self.quality_encoding,
            "records": counts.records,
            "kept": counts.kept,
            "rejected": dict(sorted(counts.rejected.items())),
            "quarantined": [asdict(record) for record in self.quarantined],
            "errors": self.errors,
        }


def check_files(
    paths: Sequence[Path],
    *,
    layout: str,
    quality: QualityFilter,
    remove_duplicates: bool = False,
    quality_encoding: str | None = None,
) -> Check:
    """Read a sample's files as the job does; whatever is wrong with them is in the answer, not raised.

    :param layout: ``single``, ``paired`` or ``interleaved``.
    :param quality_encoding: ``phred+33`` or ``phred+64``; None finds it out, which reads regular files twice, the
        first time only until it is sure, and takes phred+33 for what can be read only once.
    """
    check = Check([str(path) for path in paths], layout)
    seen = SeenSequences()
    try:
        check.quality_encoding = quality_encoding or _quality_encoding(paths, layout)
        with ExitStack() as opened:
            parts = sample_blocks(
                _opened(paths, opened),
                layout=layout,
                quality_offset=QUALITY_OFFSETS[check.quality_encoding],
            )
            for mates in parts:
                duplicates = seen.repeated(mates) if remove_duplicates else (None,) * len(mates)
                for mate, (block, duplicate) in enumerate(zip(mates, duplicates, strict=True), 1):
                    filtered = quality.apply(block, mate=mate, duplicate=duplicate)
                    check.accounting += QualityAccounting.of(block, filtered)
                    check.quarantined += block.quarantined
    except StrandloopError as error:
        check.errors.append(str(error))
    except OSError as error:
        check.errors.append(f"{error.filename or ' and '.join(check.files)}: {error.strerror or error}")
    check.accounting.check_closed()
    return check


def _quality_encoding(paths: Sequence[Path], layout: str) -> str:
    if any(path.exists() and not path.is_file() for path in paths):
        return "phred+33"
    with ExitStack() as opened:
        return find_quality_encoding(_opened(paths, opened), layout=layout)


def _opened(paths: Sequence[Path], opened: ExitStack) -> list[tuple[str, BinaryIO]]:
    return [(str(path), opened.enter_context(path.open("rb"))) for path in paths]
