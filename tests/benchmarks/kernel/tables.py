"""What was measured, as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.benchmarks.kernel.comparison import RIVAL
from tests.benchmarks.kernel.ours import PRECISIONS

MIB = 2**20
SPEED_GOALS = {
    ("fp32", 128): 2.5,
    ("fp32", 256): 2.5,
    ("fp32", 768): 1.6,
    ("int8-exact", 128): 4.5,
    ("int8-exact", 256): 4.5,
    ("int8-exact", 768): 4.5,
}
"""Times as fast as faiss.knn, by precision and dimension."""
EFFICIENCY_GOAL = 0.95
MERGE_GOAL = 0.15
MEMORY_GOAL = 1.25
MEMORY_FROM_BYTES = 100e6
"""Of input: below, what Arrow and MPI keep for themselves is a good part of what is measured."""


def text_of(result: dict[str, Any]) -> str:
    """Every part that was measured."""
    parts: dict[str, Callable[[Any], str]]
    parts = {"comparison": comparison, "growth": growth, "scaling": scaling}
    return "\n\n".join(show(result[name]) for name, show in parts.items() if name in result)


def comparison(rows: Sequence[dict[str, Any]]) -> str:
    """Part 1, with the goals below."""
    lines = [
        "1. All k-nearest neighbours, the same answers; memory is the most held over the bytes of the input"
    ]
    lines.append(
        f"{'data':10}{'D':>4}{'cores':>6}  {'way':18}{'compare s':>10}{'whole s':>9}{'GFLOP/s':>9}"
        f"{'of faiss':>10}{'recall':>8}{'memory':>8}{'runs':>5}"
    )
    for row in rows:
        head = f"{row['data']:10}{row['dim']:>4}{row['cores']:>6}  {row['way']:18}"
        if "not_measured" in row:
            lines.append(f"{head} not measured: {row['not_measured']}")
            continue
        ratio = speed_over_faiss(rows, row)
        lines.append(
            f"{head}{row['compare_seconds']:>10.2f}{row['seconds']:>9.2f}{row['effective_gflops']:>9.0f}"
            f"{'' if ratio is None else f'{ratio:.2f}x':>10}{row['recall']:>8.3f}{row['memory_over_input']:>8.2f}"
            f"{len(row['all_compare_seconds']):>5}"
        )
    lines += ["", f"{'goal':58}{'asked':>8}{'found':>8}"]
    for what, asked, found, met in goals(rows):
        lines.append(f"{what:58}{asked:>8}{found:>8}  {'met' if met else 'MISSED'}")
    return "\n".join(lines)


def speed_over_faiss(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> float | None:
    """Its speed over that of faiss.knn on the same vectors and cores; None where that was not measured."""
    same = _find(rows, row, way=RIVAL)
    return None if same is None else same["compare_seconds"] / row["compare_seconds"]


def goals(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, str, bool]]:
    """What was asked, for what, what was found, and whether it is met."""
    for row in rows:
        if row["way"] not in PRECISIONS:
            continue
        where = f"{row['way']}, {row['data']}, D = {row['dim']}, {row['cores']} cores"
        ratio, asked = speed_over_faiss(rows, row), SPEED_GOALS.get((row["way"], row["dim"]))
        if ratio is not None and asked is not None:
            yield f"{where}: over faiss.knn", f"{asked:.1f}x", f"{ratio:.2f}x", ratio >= asked
        alone = _find(rows, row, cores=1)
        if alone is not None and row["cores"] > 1:
            share = alone["compare_seconds"] / row["compare_seconds"] / row["cores"]
            yield f"{where}: efficiency", f"{EFFICIENCY_GOAL:.0%}", f"{share:.0%}", share >= EFFICIENCY_GOAL
        if row["way"] == "fp32":
            share = row["merge_share"]
            yield f"{where}: merge", f"{MERGE_GOAL:.0%}", f"{share:.0%}", share <= MERGE_GOAL
        if row["rows"] * row["dim"] * 4 < MEMORY_FROM_BYTES:
            continue
        memory = row["memory_over_input"]
        yield f"{where}: memory", f"{MEMORY_GOAL:.2f}", f"{memory:.2f}", memory <= MEMORY_GOAL


def _find(rows: Sequence[dict[str, Any]], row: dict[str, Any], **other: Any) -> dict[str, Any] | None:
    """The measured row that differs from ``row`` in these fields only."""
    wanted = {name: row[name] for name in ("data", "rows", "dim", "way", "cores")} | other
    matching = (each for each in rows if wanted.items() <= each.items() and "not_measured" not in each)
    return next(matching, None)


def growth(found: dict[str, Any]) -> str:
    """Part 2."""
    lines = [f"2. Growth with the number of rows: clustered, {found['ranks']} ranks"]
    lines.append(f"{'precision':12}{'rows':>9}{'compare s':>11}{'whole s':>9}{'peak MiB':>10}")
    for row in found["rows"]:
        lines.append(
            f"{row['precision']:12}{row['rows']:>9,}{row['compare_seconds']:>11.2f}{row['seconds']:>9.2f}"
            f"{row['peak_memory_bytes'] / MIB:>10.0f}"
        )
    for precision, fit in found["fits"].items():
        if None in fit.values():
            lines.append(f"{precision}: too few sizes for a fit")
            continue
        lines.append(
            f"{precision}: comparison ~ N^{fit['compare_exponent']:.2f}, whole ~ N^{fit['whole_exponent']:.2f}; "
            f"{fit['bytes_per_row']:.0f} bytes a row = {fit['memory_over_input']:.2f} of the input"
        )
    return "\n".join(lines)


def scaling(found: dict[str, Any]) -> str:
    """Part 3: on cores, and between network namespaces with the model beside it."""
    lines = ["3. Strong and weak scaling on the cores of this machine"]
    lines.append(f"{'':8}{'precision':12}{'rows':>9}{'D':>5}{'ranks':>6}{'compare s':>11}{'efficiency':>12}")
    for row in found["cores"]:
        lines.append(
            f"{row['kind']:8}{row['precision']:12}{row['rows']:>9,}{row['dim']:>5}{row['ranks']:>6}"
            f"{row['compare_seconds']:>11.2f}{row['efficiency']:>12.0%}"
        )
    links = found["links"]
    if "not_measured" in links:
        return "\n".join([*lines, f"   between namespaces: not measured: {links['not_measured']}"])
    lines.append(
        "   Between network namespaces, a member of the ring in each; the model against what was measured"
    )
    lines.append(
        f"{'members':>8}{'rows':>9}{'D':>5}{'link asked':>12}{'MB/s found':>12}{'us found':>10}"
        f"{'compare s':>11}{'model s':>9}{'model off':>11}"
    )
    for row in links["rows"]:
        asked = "none" if row["link_mbit"] is None else f"{row['link_mbit']} Mbit"
        lines.append(
            f"{row['members']:>8}{row['rows']:>9,}{row['dim']:>5}{asked:>12}{row['bytes_per_second'] / 1e6:>12.1f}"
            f"{row['alpha_seconds'] * 1e6:>10.0f}{row['compare_seconds']:>11.2f}{row['model_seconds']:>9.2f}"
            f"{row['model_seconds'] / row['compare_seconds'] - 1:>+11.0%}"
        )
    return "\n".join(lines)
