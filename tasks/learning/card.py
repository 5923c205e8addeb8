"""What an encoder's card says of its training, so that it can be judged and repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.learning.contrastive import TrainingRecord
from tasks.learning.evaluation import Retrieval
from tasks.learning.pairs import Mixture

if TYPE_CHECKING:
    from tasks.learning.masked_words import MaskedRecord


@dataclass(frozen=True)
class TrainingData:
    """What was learnt from: batches, their reads, those trained on, and the held-out templates.

    :param replayed: pairs of earlier batches in the reservoir, by batch.
    """

    batches: list[str]
    reads: int
    training_reads: int
    held_out_templates: int
    replayed: dict[str, int]


@dataclass(frozen=True)
class PairsOnCard:
    """What pairs of one source a training drew.

    :param available: different reads, or pairs of reads, that there were.
    :param share: of all pairs that were drawn.
    :param purity: share that is of one genome, by the estimate of :mod:`tasks.learning.purity`; None if not asked.
    """

    available: int
    share: float
    purity: float | None


def pairs_on_card(pairs: Mixture, purities: Mapping[str, float]) -> dict[str, PairsOnCard]:
    """The mix of a training by the names of its sources; those of several batches are added up."""
    found: dict[str, PairsOnCard] = {}
    for source, share in zip(pairs.sources, pairs.shares, strict=True):
        (name,) = source.names
        known = found.get(name, PairsOnCard(0, 0.0, None))
        found[name] = PairsOnCard(
            known.available + len(source), round(known.share + share, 4), purities.get(name)
        )
    return found


def training_card(
    *,
    data: TrainingData,
    pairs: Mapping[str, PairsOnCard],
    training: TrainingRecord,
    masked: MaskedRecord | None = None,
    metrics: dict[str, Any],
) -> dict[str, Any]:
    """What was learnt from, how, and what came of it; the registry adds name, version, parent and checksums.

    :param masked: the stage before ``training``, where there was one.
    :param metrics: measured on the held-out templates.
    """
    return {
        "data": asdict(data) | {"pairs": {name: asdict(each) for name, each in pairs.items()}},
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
