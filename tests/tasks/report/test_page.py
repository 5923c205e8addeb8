"""The page of a batch: its numbers are those of the results, and it is safe and complete in itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from tasks import results
from tasks.batches import Batch
from tasks.errors import StorageError
from tasks.object_store import ObjectStore
from tasks.report.page import build_report


class Page(HTMLParser):
    """Tables, headline and references of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[tuple[str, str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.headline: dict[str, list[str]] = {}
        self.text = ""
        self._table: list[list[str]] = []
        self._into: list[str] | None = None
        self._label = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = {name: value or "" for name, value in attrs}
        self.references += [
            (tag, name, named[name]) for name in ("src", "href", "srcset", "data") if name in named
        ]
        if tag == "table":
            self._table = self.tables.setdefault(named.get("id", named.get("class", "")), [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")
            self._into = self._table[-1]
        elif tag == "dt":
            self._into = [""]
        elif tag == "dd":
            self._label = self._into[0] if self._into else ""
            self._into = self.headline.setdefault(self._label, [""])
        elif tag == "small":
            self.headline[self._label].append("")
        elif tag in ("p", "caption"):
            self._into = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._into is not None:
            self._into[-1] += data.strip("\n")


def read_page(demo: Any) -> tuple[str, Page]:
    body = ObjectStore().get_bytes(Batch(demo.data_uri, demo.batch_id).results / "report" / "index.html")
    return body.decode(), Page(body.decode())


def test_numbers_are_those_of_the_results(finished_batch: Any) -> None:
    _, page = read_page(finished_batch)
    kept = len(finished_batch.kept_ids)
    assert page.headline["Reads in"][0] == "220"
    assert page.headline["Kept"] == [str(kept), f"{kept / 2.2:.1f} %"]
    assert page.headline["Vectors"] == [str(kept), "of 64 dimensions"]
    assert page.headline["Neighbours per read"] == ["10.0", f"{finished_batch.edges:,} edges"]
    assert page.headline["Clusters"][0] == str(len(finished_batch.cluster_sizes))
    assert "Verified overlaps" not in page.headline
    assert [int(row[1]) for row in page.tables["cluster-table"][1:]] == finished_batch.cluster_sizes[:20]


@pytest.mark.parametrize(
    ("pairs", "found", "entry"),
    [(400, 250, ["250", "62.5 % of the mutual neighbours"]), (0, 0, ["0", "nothing to align"])],
)
def test_verified_overlaps_are_among_the_numbers_where_pairs_were_aligned(
    publish_batch: Any, simulate: Any, pairs: int, found: int, entry: list[str]
) -> None:
    demo = publish_batch({"s": simulate(30, [0.5], seed=3)})
    batch = Batch(demo.data_uri, demo.batch_id)
    share = found / pairs if pairs else None
    details = {"pairs": pairs, "overlaps": found, "share": share, "pairs_are": "mutual neighbours"}
    results.publish(ObjectStore(), batch.results / "overlaps", {}, details)
    build_report(demo.data_uri, demo.batch_id)
    assert read_page(demo)[1].headline["Verified overlaps"] == entry


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def test_a_first_batch_is_beside_none(finished_batch: Any) -> None:
    _, page = read_page(finished_batch)
    assert (
        "No verdict: batch 2026-11-20 is the first with encoder registry://kmer-mlp@v2-1a2b3c4d" in page.text
    )
    assert "drift-table" not in page.tables


def test_a_batch_is_shown_beside_the_ones_before_it(publish_batch: Any, simulate: Any) -> None:
    publish_batch({"s": simulate(60, [0.5], seed=3)}, batch_id="2026-11-18")
    publish_batch({"s": simulate(60, [0.5], seed=4)}, batch_id="2026-11-19")
    demo = publish_batch({"s": simulate(60, [0.5], seed=5)})
    build_report(demo.data_uri, demo.batch_id)
    page = read_page(demo)[1]
    drift = ObjectStore().get_json(Batch(demo.data_uri, demo.batch_id).results / "drift" / "drift.json")
    distance, (alone, largest, clusters) = drift["comparison"]["distance"], drift["comparison"]["measures"]
    assert drift["comparison"]["verdict"] in page.text
    assert "Compared with 2026-11-18, 2026-11-19, of the same" in page.text
    rows = {row[0]: row[1:] for row in page.tables["drift-table"][1:]}
    assert rows["Reads in the largest cluster"][:2] == [
        percent(largest["value"]),
        f"{percent(largest['lowest'])} to {percent(largest['highest'])}",
    ]
    assert rows["Clusters of two or more, per 1,000 reads"] == [
        f"{clusters['value']:.2f}",
        f"{clusters['lowest']:.2f} to {clusters['highest']:.2f}",
        "",
    ]
    assert rows["Reads named back by no neighbour"][2] == f"above {percent(alone['limits'][1])}"
    nearest = next(row for name, row in rows.items() if name.startswith("Reads with a nearest neighbour"))
    assert nearest[:2] == [percent(distance["share"]), percent(distance["share_before"])]


def test_every_record_is_accounted_for(finished_batch: Any) -> None:
    header, *rows, total = read_page(finished_batch)[1].tables["accounting"]
    names = header[4:8]
    assert names == ["Duplicate", "Low quality", "Too many n", "Too short"]
    assert {row[0] for row in rows} == set(finished_batch.accounting)
    for row in rows:
        counted = finished_batch.accounting[row[0]]
        rejected = [str(counted.rejected[name.lower().replace(" ", "_")]) for name in names]
        assert row[1:3] == [str(counted.records), str(counted.kept)]
        assert row[4:9] == [*rejected, str(counted.quarantined)]
        assert int(row[1]) == int(row[2]) + sum(map(int, row[4:9]))
    assert total[:3] == ["All samples", "220", str(len(finished_batch.kept_ids))]


def test_reads_are_described_before_and_after(finished_batch: Any) -> None:
    rows = {row[0]: row[1:] for row in read_page(finished_batch)[1].tables["profile"]}
    profiles = [
        [getattr(counted, time) for counted in finished_batch.accounting.values()]
        for time in ("before", "after")
    ]
    reads = [sum(profile.reads for profile in each) for each in profiles]
    bases = [sum(profile.bases for profile in each) for each in profiles]
    assert rows["Reads"] == [f"{count:,}" for count in reads]
    assert rows["Bases"] == [f"{count:,}" for count in bases]
    lengths = [f"{total / count:.1f}" for total, count in zip(bases, reads, strict=True)]
    assert rows["Mean length"] == lengths
    assert rows["Reads that repeat a sequence (estimate)"] == ["0.0 %", "0.0 %"]


def test_cost_is_that_of_cost_json(finished_batch: Any) -> None:
    _, page = read_page(finished_batch)
    results = Batch(finished_batch.data_uri, finished_batch.batch_id).results
    cost = ObjectStore().get_json(results / "cost" / "cost.json")
    *lines, total = page.tables["cost-table"][1:]
    assert [line[0] for line in lines] == [
        "Embed",
        "Stage",
        "Similarity",
        "Collect",
        "Ray head",
        "Slurm head",
    ]
    assert total[-2:] == [f"{cost['total']['usd_on_demand']:.4f}", f"{cost['total']['usd_spot']:.4f}"]
    assert "would have cost on AWS" in page.text


def test_provenance_names_encoder_request_and_code(finished_batch: Any) -> None:
    facts = dict(read_page(finished_batch)[1].tables["facts"])
    assert facts["Encoder"] == "registry://kmer-mlp@v2-1a2b3c4d"
    assert facts["Encoder parent"] == "v1-99887766"
    assert "recall_at_1 0.8125" in facts["Encoder metrics"]
    assert "top_k 10" in facts["Request"]
    assert re.fullmatch("SHA-256 [0-9a-f]{64}", facts["Landing manifest"])
    assert facts["Code version"] == "0.1.0+abc1234"


def test_names_and_reads_of_users_are_escaped(finished_batch: Any) -> None:
    body, page = read_page(finished_batch)
    nasty = next(name for name in finished_batch.accounting if name != "gut")
    assert not {"svg", "script"} & set(page.tags)
    assert nasty not in body
    assert nasty in page.text
    quarantined = page.tables["quarantine"][1:]
    assert [row[1] for row in quarantined] == ["8", "1"]
    assert "<script>1</script>" in quarantined[1][4]


def test_the_page_loads_nothing(finished_batch: Any) -> None:
    body, page = read_page(finished_batch)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert all(value.startswith("data:image/") for tag, _, value in page.references if tag != "a")
    assert not re.search(r"@import|url\(", body)
    assert page.tags.count("img") == 9


def test_a_second_run_changes_nothing(finished_batch: Any) -> None:
    body, _ = read_page(finished_batch)
    assert build_report(finished_batch.data_uri, finished_batch.batch_id) == {
        "status": "unchanged",
        "page": f"{finished_batch.data_uri}/batches/2026-11-20/report/index.html",
        "reads": 220,
        "kept": len(finished_batch.kept_ids),
        "clusters": len(finished_batch.cluster_sizes),
    }
    assert read_page(finished_batch)[0] == body


def test_a_page_built_anew_has_the_same_bytes(finished_batch: Any) -> None:
    body, _ = read_page(finished_batch)
    results = Batch(finished_batch.data_uri, finished_batch.batch_id).results
    ObjectStore().delete(results / "report" / "manifest.json")
    assert build_report(finished_batch.data_uri, finished_batch.batch_id)["status"] == "written"
    assert read_page(finished_batch)[0] == body


@pytest.mark.parametrize(
    ("reads", "top_k", "neighbours"), [(1, 10, "0.0"), (2, 10, "1.0"), (3, 1, "1.0"), (9, 10, "8.0")]
)
def test_small_batches(
    publish_batch: Callable[..., Any], simulate: Callable[..., str], reads: int, top_k: int, neighbours: str
) -> None:
    demo = publish_batch({"tiny": simulate(reads, [0.5], seed=4, flawless=True)}, top_k=top_k)
    build_report(demo.data_uri, demo.batch_id)
    _, page = read_page(demo)
    assert page.headline["Kept"] == [str(reads), "100.0 %"]
    assert page.headline["Neighbours per read"][0] == neighbours
    assert ("No read has a neighbour" in page.text) == (reads == 1)
    assert "quarantine" not in page.tables


def test_a_sample_without_reads_is_in_the_table(
    publish_batch: Callable[..., Any], simulate: Callable[..., str]
) -> None:
    demo = publish_batch({"empty": "", "tiny": simulate(3, [0.5], seed=4, flawless=True)})
    build_report(demo.data_uri, demo.batch_id)
    empty = read_page(demo)[1].tables["accounting"][1]
    assert empty == ["empty", "0", "0", "0.0 %", "0", "0", "0", "0", "0", "0", "0"]


@pytest.mark.parametrize("result", ["quality", "reads", "graph", "clusters", "drift", "cost"])
def test_a_missing_result_is_named(
    publish_batch: Callable[..., Any], simulate: Callable[..., str], result: str
) -> None:
    demo = publish_batch({"tiny": simulate(5, [0.5], seed=4, flawless=True)})
    ObjectStore().delete(Batch(demo.data_uri, demo.batch_id).results / result / "manifest.json")
    with pytest.raises(StorageError, match=f"/{result} has no manifest.json"):
        build_report(demo.data_uri, demo.batch_id)
