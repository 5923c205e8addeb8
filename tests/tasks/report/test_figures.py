"""Figures are SVG documents that load nothing, and the same numbers give the same bytes."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from tasks.reads.length_bins import SHORTEST_OF_BIN
from tasks.report import figures
from tasks.report.neighbourhoods import COSINE_EDGES

NOTHING = np.zeros(400, np.int64)
ONE = np.eye(1, 400, 399, dtype=np.int64)[0]
LOW = np.eye(1, 400, 0, dtype=np.int64)[0]

DRAWINGS: dict[str, Callable[[], str]] = {
    "quality": lambda: figures.quality_by_position(np.linspace(38, 12, 150), np.linspace(38, 25, 90)),
    "quality of one base": lambda: figures.quality_by_position(np.array([30.0]), np.array([30.0])),
    "quality, nothing kept": lambda: figures.quality_by_position(np.array([30.0]), np.array([])),
    "lengths": lambda: figures.lengths(np.arange(900), np.arange(900) // 2, SHORTEST_OF_BIN),
    "long reads": lambda: figures.lengths(np.arange(1200), np.arange(1200) // 2, SHORTEST_OF_BIN),
    "lengths, no reads": lambda: figures.lengths(NOTHING, NOTHING, SHORTEST_OF_BIN),
    "one length": lambda: figures.before_and_after(ONE, ONE, label="Bases"),
    "no reads": lambda: figures.before_and_after(NOTHING, NOTHING, label="Bases"),
    "bases": lambda: figures.bases_by_position(
        {base: np.full(90, 20.0) for base in "ACGTN"}, {base: np.full(1, 20.0) for base in "ACGTN"}
    ),
    "bases, nothing kept": lambda: figures.bases_by_position({"A": np.full(9, 100.0)}, {"A": np.zeros(0)}),
    "duplication": lambda: figures.duplication(["1", "2"], np.array([60, 40.0]), np.array([100, 0.0])),
    "similarity": lambda: figures.similarity(np.arange(400), np.arange(400) * 3, COSINE_EDGES),
    "one similarity": lambda: figures.similarity(ONE, ONE, COSINE_EDGES),
    "lowest similarity": lambda: figures.similarity(LOW, LOW + ONE, COSINE_EDGES),
    "wide similarity": lambda: figures.similarity(ONE, np.ones(400, np.int64), COSINE_EDGES),
    "drift": lambda: figures.drift(np.arange(200) / 19_900, np.arange(200)[::-1] / 19_900, COSINE_EDGES[::2]),
    "drift of a first batch": lambda: figures.drift(
        np.arange(200) / 19_900, np.zeros(200), COSINE_EDGES[::2]
    ),
    "drift of a single read": lambda: figures.drift(np.zeros(200), np.zeros(200), COSINE_EDGES[::2]),
    "map": lambda: figures.read_map(np.arange(60.0).reshape(30, 2), np.arange(30) % 12),
    "map of one read": lambda: figures.read_map(np.zeros((1, 2)), np.zeros(1, np.int32)),
}


def svg_of(image: str) -> str:
    scheme, _, body = image.partition(",")
    assert scheme == "data:image/svg+xml;base64"
    return base64.b64decode(body).decode()


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_a_document_of_its_own(name: str) -> None:
    text = svg_of(DRAWINGS[name]())
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    loaded = re.findall(r'href="([^#"]+)"', text)
    assert all(address.startswith("data:image/png") for address in loaded)
    assert "DejaVu" not in text


@pytest.mark.parametrize("name", ["quality", "lengths", "long reads", "similarity", "drift", "map"])
def test_the_same_numbers_give_the_same_bytes(name: str) -> None:
    assert DRAWINGS[name]() == DRAWINGS[name]()


def test_long_reads_are_shown_on_a_logarithmic_axis() -> None:
    counts = np.zeros(len(SHORTEST_OF_BIN), np.int64)
    counts[[150, 1000 + 16, 1000 + 5 * 16]] = 5  # 150, 2,000 and 32,000 bases
    text = svg_of(figures.lengths(counts, counts, SHORTEST_OF_BIN))
    ticks = {label.strip() for label in re.findall(r">\s*([\d,]+)\s*</text>", text)}
    assert {"1,000", "10,000"} <= ticks


def test_a_first_batch_is_shown_without_earlier_ones() -> None:
    assert "earlier batches" in svg_of(DRAWINGS["drift"]())
    assert "earlier batches" not in svg_of(DRAWINGS["drift of a first batch"]())


def test_large_clusters_are_numbered_as_in_the_table() -> None:
    text = svg_of(figures.read_map(np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3))
    assert {label.strip() for label in re.findall(r">\s*(\d+)\s*</text>", text)} == {"0", "1", "2"}
