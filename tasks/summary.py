"""A batch in a few lines: ``python -m tasks.summary --data-uri s3://strandloop --batch-id 2026-11-20``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tasks import results
from tasks.batches import Batch
from tasks.errors import StrandloopError
from tasks.object_store import ObjectStore


def summarise(store: ObjectStore, batch: Batch) -> list[tuple[str, str]]:
    """What came of a finished batch, as (name, value) lines.

    :raises StorageError: the batch has no finished report, or a result does not match its manifest.
    """
    results.verify(store, batch.results / "report")
    quality = store.get_json(batch.results / "quality" / "quality.json")["total"]
    graph = results.verify(store, batch.results / "graph").details
    clusters = results.verify(store, batch.results / "clusters").details
    cost = store.get_json(batch.results / "cost" / "cost.json")
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in sorted(quality["rejected"].items()))
    lines = [
        ("reads in", f"{quality['records']:,}"),
        (
            "reads kept",
            f"{quality['kept']:,} ({rejected or 'none rejected'}; {quality['quarantined']:,} quarantined)",
        ),
        ("vectors", f"{graph['reads']:,}"),
        ("neighbours", f"{graph['edges']:,} (up to {graph['k']} for each read)"),
        ("clusters", f"{clusters['clusters']:,}"),
    ]
    if results.find(store, batch.results / "overlaps"):
        overlaps = results.verify(store, batch.results / "overlaps").details
        share = f" ({overlaps['share']:.1%})" if overlaps["pairs"] else ""
        lines.append(
            ("overlaps", f"{overlaps['overlaps']:,} of {overlaps['pairs']:,} {overlaps['pairs_are']}{share}")
        )
    lines += _retraining_lines(store, batch)
    lines += [
        (
            f"{phase['name']}",
            f"{phase['seconds']:.0f} s on {phase['nodes']} node(s); "
            f"${phase['usd_on_demand']:.4f} on demand, ${phase['usd_spot']:.4f} spot on {phase['instance_type']}",
        )
        for phase in cost["phases"]
    ]
    total = cost["total"]
    lines.append(
        ("cost", f"${total['usd_on_demand']:.4f} on demand, ${total['usd_spot']:.4f} spot. {cost['basis']}")
    )
    return lines


def _retraining_lines(store: ObjectStore, batch: Batch) -> list[tuple[str, str]]:
    if results.find(store, batch.results / "retraining") is None:
        return [("encoder", f"{_pinned(store, batch)}; not retrained on this batch yet")]
    verdict: dict[str, Any] = store.get_json(batch.results / "retraining" / "retraining.json")
    outcome = "promoted" if verdict["promoted"] else "not promoted"
    unlike = [
        (f"unlike panel {panel}", f"{share:.1%} of the reads")
        for panel, share in verdict["metrics"].get("unlike_panels", {}).items()
    ]
    return [
        *unlike,
        ("encoder before", verdict["encoder_before"]),
        ("encoder after", f"{verdict['encoder_after'] or 'none'}: {outcome} ({verdict['reason']})"),
        ("retraining", f"{verdict['seconds']:.0f} s"),
    ]


def _pinned(store: ObjectStore, batch: Batch) -> str:
    return str(store.get_json(batch.results / "embeddings" / "manifest.json")["encoder"]["uri"])


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks.summary", description="Say what came of a batch.")
    parser.add_argument("--data-uri", required=True, help="s3://bucket[/prefix] that holds batches/")
    parser.add_argument("--batch-id", required=True)
    parser.add_argument("--save-report", type=Path, help="copy the HTML report to this file")
    arguments = parser.parse_args()
    try:
        store, batch = ObjectStore(), Batch(arguments.data_uri, arguments.batch_id)
        lines = summarise(store, batch)
        page = batch.results / "report" / "index.html"
        if arguments.save_report:
            store.download(page, arguments.save_report)
    except (StrandloopError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    lines.append(("report", str(arguments.save_report or page)))
    width = max(len(name) for name, _ in lines)
    print(f"Batch {batch.batch_id}")
    for name, value in lines:
        print(f"  {name:<{width}}  {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
