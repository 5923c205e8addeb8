"""What an encoder's card says of its training, so that it can be judged and repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.learning.contrastive import TrainingRecord
from tasks.learning.evaluation import Retrieval
from tasks.learning.held_out import Split

if TYPE_CHECKING:
    from tasks.learning.masked_words import MaskedRecord


def training_card(
    *,
    batch_id: str,
    reads: int,
    split: Split,
    pairs: Mapping[str, int],
    training: TrainingRecord,
    masked: MaskedRecord | None = None,
    metrics: dict[str, Any],
) -> dict[str, Any]:
    """What was learnt from, how, and what came of it; the registry adds name, version, parent and checksums.

    :param pairs: how many reads or pairs of reads there were to draw from, by source.
    :param masked: the stage before ``training``, where there was one.
    :param metrics: measured on the held-out templates.
    """
    return {
        "data": {
            "batch_id": batch_id,
            "reads": reads,
            "training_reads": len(split.training),
            "held_out_templates": split.templates,
            "pairs": dict(pairs),
        },
        "training": asdict(training) | ({"masked_words": asdict(masked)} if masked else {}),
        "metrics": metrics,
        "code_version": code_version(),
    }


def recalls(found: Retrieval) -> dict[str, float]:
    """recall@1 and recall@10, rounded to what the number of held-out templates supports."""
    if not len(found.ranks):
        return {}
    return {f"recall@{k}": round(found.recall(k), 4) for k in (1, 10)}


def code_version() -> str:
    """SHA-256 (first 12 hex digits) over the sources of ``tasks.encoders`` and ``tasks.learning``.

    A job on a cluster has the code but no version control, so the code names itself.
    """
    tasks = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*tasks.glob("encoders/*.py"), *tasks.glob("learning/*.py")]):
        digest.update(path.relative_to(tasks).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
