"""The page of a batch: what came in, what was kept, who is like whom, and what it cost.

One HTML file that needs no network: style and figures are inside it. The same results give the same page; it
holds no date of its own.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from importlib import resources
from itertools import islice
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from hpc_jobs.store import StoreManifest
from tasks import results
from tasks.batches import Batch
from tasks.errors import StorageError
from tasks.object_store import ObjectStore
from tasks.overlaps import PREFIX as OVERLAPS
from tasks.report import figures
from tasks.report.drift import drift_section
from tasks.report.neighbourhoods import COSINE_EDGES, measure
from tasks.report.provenance import provenance
from tasks.report.quality import quality_section
from tasks.report.sample import lay_out, take_sample

SHOWN_QUARANTINED = 10


def build_report(data_uri: str, batch_id: str) -> dict[str, Any]:
    """Publish ``report/index.html`` of a batch, once.

    :return: ``status``, ``page`` (its address), ``reads``, ``kept``, ``clusters``.
    :raises StorageError: a result that the page shows is missing or damaged.
    """
    store, batch = ObjectStore(), Batch(data_uri, batch_id)
    prefix = batch.results / "report"
    known = results.find(store, prefix)
    if known is not None:
        print(f"{prefix} is finished already: unchanged")
        return {"status": "unchanged", **known.details}
    context = _gather(store, batch)
    summary = {
        "page": str(prefix / "index.html"),
        "reads": context["total"].records,
        "kept": context["total"].kept,
        "clusters": context["cluster_count"],
    }
    results.publish(store, prefix, {"index.html": render(context).encode()}, summary)
    return {"status": "written", **summary}


def render(context: Mapping[str, Any]) -> str:
    """The page as text; whatever users named is escaped, and a name that the context lacks is an error."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "thousands": _thousands,
        "percent": _percent,
        "decimal": _decimal,
        "words": _words,
    }
    source = resources.files("tasks.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(context)


def _gather(store: ObjectStore, batch: Batch) -> dict[str, Any]:
    """Everything that the page shows, under the names that the template uses."""
    request = store.get_json(batch.results / "request.json")
    embeddings = StoreManifest.from_json(store.get_json(batch.results / "embeddings" / "manifest.json"))
    quality = quality_section(json.loads(_fetch(store, batch, "quality", "quality.json")))
    cost = json.loads(_fetch(store, batch, "cost", "cost.json"))
    cluster_details = _manifest(store, batch, "clusters").details
    sample = take_sample(store, batch, embeddings)
    graph = measure(store, batch, sample)
    similarity = graph.similarity
    return {
        "batch_id": batch.batch_id,
        "results": str(batch.results),
        "request": request,
        **quality,
        "quarantined": _first_quarantined(store, batch) if quality["total"].quarantined else [],
        "embeddings": embeddings,
        "map": {
            "image": figures.read_map(lay_out(sample.map_vectors), graph.map_clusters),
            "reads": len(sample.map_ids),
        },
        "similarity": similarity,
        "similarity_image": figures.similarity(
            similarity.nearest_histogram, similarity.all_histogram, COSINE_EDGES
        ),
        "inside": graph.inside,
        "drift": drift_section(json.loads(_fetch(store, batch, "drift", "drift.json"))),
        "clusters": graph.clusters,
        "cluster_count": len(graph.sizes),
        "singletons": int(np.count_nonzero(graph.sizes == 1)),
        "cluster_method": cluster_details["method"],
        "modularity": cluster_details["modularity"],
        "colours": dict(enumerate(figures.CLUSTER_COLOURS)),
        "others": figures.OTHERS,
        "sample_reads": len(sample.reads),
        "sample_is_whole": sample.is_whole,
        "cost": cost,
        "headline": _headline(
            quality["total"], embeddings, similarity.edges, _overlaps(store, batch), graph.sizes, cost
        ),
        "provenance": provenance(store, batch, request, embeddings),
    }


def _headline(
    total: Any,
    embeddings: StoreManifest,
    edges: int,
    overlaps: list[tuple[str, str, str]],
    sizes: np.ndarray,
    cost: Mapping[str, Any],
) -> list[tuple[str, str, str]]:
    """Label, value and remark of the numbers at the top."""
    return [
        ("Reads in", _thousands(total.records), f"{_thousands(total.bases_before)} bases"),
        ("Kept", _thousands(total.kept), _percent(total.kept_share)),
        ("Vectors", _thousands(embeddings.rows), f"of {embeddings.dim} dimensions"),
        ("Neighbours per read", _decimal(edges / embeddings.rows, 1), f"{_thousands(edges)} edges"),
        *overlaps,
        (
            "Clusters",
            _thousands(len(sizes)),
            f"the largest has {_percent(sizes.max() / sizes.sum())} of reads",
        ),
        ("Cost", _dollars(cost["total"]["usd_on_demand"]), f"{_dollars(cost['total']['usd_spot'])} on spot"),
    ]


def _overlaps(store: ObjectStore, batch: Batch) -> list[tuple[str, str, str]]:
    """The entry of the numbers at the top; none where nothing was aligned."""
    manifest = results.find(store, batch.results / OVERLAPS)
    if manifest is None:
        return []
    found = manifest.details
    of_all = (
        f"{_percent(found['share'])} of the {found['pairs_are']}" if found["pairs"] else "nothing to align"
    )
    return [("Verified overlaps", _thousands(found["overlaps"]), of_all)]


def _first_quarantined(store: ObjectStore, batch: Batch) -> list[dict[str, Any]]:
    """The first few records in quarantine; the file itself may be long and is not read to its end."""
    _manifest(store, batch, "quarantine")
    with io.TextIOWrapper(store.open(batch.results / "quarantine" / "records.jsonl"), "utf-8") as lines:
        return [json.loads(line) for line in islice(lines, SHOWN_QUARANTINED)]


def _fetch(store: ObjectStore, batch: Batch, result: str, name: str) -> bytes:
    for file in _manifest(store, batch, result).files:
        if file.name == name:
            return results.fetch(store, batch.results / result, file)
    raise StorageError(f"{batch.results / result} does not hold {name}; clear the task that writes it")


def _manifest(store: ObjectStore, batch: Batch, result: str) -> results.ResultManifest:
    manifest = results.find(store, batch.results / result)
    if manifest is None:
        raise StorageError(
            f"{batch.results / result} has no manifest.json: the task that writes it did not finish; clear it"
        )
    return manifest


def _thousands(number: int) -> str:
    return f"{number:,}"


def _percent(fraction: float | None) -> str:
    """``12.3 %``; a fraction that is not quite nothing or not quite all never reads as if it were."""
    if fraction is None:
        return "–"
    if 0 < fraction < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= fraction < 1:
        return "> 99.9 %"
    return f"{100 * fraction:.1f} %"


def _decimal(number: float | None, digits: int) -> str:
    return "–" if number is None else f"{number:,.{digits}f}"


def _dollars(amount: float) -> str:
    """Cents from a dollar on; of less, two digits that say something."""
    return f"${amount:,.2f}" if amount >= 1 else f"${float(f'{amount:.2g}'):.6g}"


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
