"""What was measured, as text."""

from __future__ import annotations

from typing import Any

MIB = 2**20


def text_of(result: dict[str, Any]) -> str:
    """Every part that was measured."""
    parts = {"parsing": parsing, "whole_job": whole_job, "models": models, "scaling": scaling, "cost": cost}
    return "\n\n".join(show(result[name]) for name, show in parts.items() if name in result)


def parsing(rows: list[dict[str, Any]]) -> str:
    """Part 1, with our rate over that of dnaio + cutadapt."""
    rates = {(row["input"], row["adapter"], row["way"]): row["reads_per_second"] for row in rows}
    lines = ["1. FASTQ.gz -> trimmed reads in Arrow; one process, one thread; equal tables"]
    lines.append(f"{'input':7}{'adapter':9}{'':20}{'reads/s':>12}{'MB/s':>9}{'of cutadapt':>13}{'MiB':>7}")
    for row in rows:
        ratio = row["reads_per_second"] / rates[row["input"], row["adapter"], "dnaio + cutadapt"]
        lines.append(
            f"{row['input']:7}{'yes' if row['adapter'] else 'no':9}{row['way']:20}{row['reads_per_second']:>12,}"
            f"{row['text_mb_per_second']:>9.1f}{ratio:>12.2f}x{row['peak_memory_bytes'] / MIB:>7.0f}"
        )
    return "\n".join(lines)


def whole_job(cases: list[dict[str, Any]]) -> str:
    """Part 2."""
    lines = ["2. Whole job, S3 to S3, 2 CPUs; the same rows"]
    lines.append(
        f"{'input':7}{'encoder':10}{'':22}{'engine s':>9}{'small s':>9}{'batch s':>9}"
        f"{'reads/s':>10}{'peak MiB':>10}"
    )
    for found in cases:
        for row in found["rows"]:
            head = f"{found['input']:7}{found['encoder']:10}{row['way']:22}"
            if "not_measured" in row:
                lines.append(f"{head} not measured: {row['not_measured']}")
                continue
            lines.append(
                f"{head}{row['engine_seconds']:>9.1f}{row['small_batch_seconds']:>9.1f}{row['seconds']:>9.1f}"
                f"{row['reads_per_second']:>10,}{row['peak_memory_bytes'] / MIB:>10.0f}"
            )
        stages = ", ".join(
            f"{name} {stage['cpu_seconds']:.1f} s CPU ({found['reads'] / stage['seconds']:,.0f} reads/s)"
            for name, stage in found["stages"].items()
        )
        lines.append(f"{'':17}alone: {stages}; S3 server {found['server_cpu_seconds']:.1f} s CPU")
        lines.append(
            f"{'':17}ideal {found['ideal_seconds']:.1f} s = {found['share_of_stages']:.0%} of our time; with the "
            f"server's CPU {found['share_with_server']:.0%}"
        )
        if "margin" in found:
            rates = found["margin"]["reads_per_second"]
            each = ", ".join(f"{way} {rate:,} reads/s" for way, rate in rates.items())
            lines.append(
                f"{'':17}at the margin: {each}; ideal {found['margin']['share_of_stages']:.0%} of our time"
            )
    return "\n".join(lines)


def models(found: dict[str, Any]) -> str:
    """Part 3, with our rate over each rival's."""
    mix = found["mix"]
    lines = [
        f"3. Networks on {found['device']}, {found['threads']} threads, random weights; lengths mixed: "
        f"{mix['mean_bases']} bases on average, up to {mix['longest_bases']:,}"
    ]
    lines.append(
        f"{'model':17}{'':24}{'reads/s':>10}{'tokens/s':>11}{'ours over it':>14}{'of bf16 peak':>14}"
    )
    best = {row["model"]: row["reads_per_second"] for row in found["rows"] if row["way"] == "ours"}
    for row in found["rows"]:
        head = f"{row['model']:17}{row['way']:24}"
        if "not_measured" in row:
            lines.append(f"{head} not measured: {row['not_measured']}")
            continue
        ratio = best[row["model"]] / row["reads_per_second"]
        share = row.get("share_of_peak")
        lines.append(
            f"{head}{row['reads_per_second']:>10,.1f}{row['tokens_per_second']:>11,}{ratio:>13.2f}x"
            f"{'' if share is None else f'{share:.0%}':>14}"
        )
    if found["device"] != "cuda":
        lines.append("share of the matrix peak in bfloat16: not measured: no GPU")
    return "\n".join(lines)


def scaling(found: dict[str, Any]) -> str:
    """Part 4, measured."""
    lines = [f"4. Our job on several nodes of this machine, which has {found['cores']} cores; kmer-mlp"]
    lines.append(f"{'nodes':>6}{'CPUs':>6}{'small s':>9}{'batch s':>9}{'reads/s':>10}")
    for row in found["rows"]:
        head = f"{row['nodes']:>6}{row['cpus']:>6}"
        if "not_measured" in row:
            lines.append(f"{head} not measured: {row['not_measured']}")
            continue
        lines.append(
            f"{head}{row['small_batch_seconds']:>9.1f}{row['seconds']:>9.1f}{row['reads_per_second']:>10,}"
        )
    return "\n".join(lines)


def cost(found: dict[str, Any]) -> str:
    """The model of the cost, with its assumptions."""
    lines = [
        "   MODEL, not measured: a batch of short reads on AWS, spot prices of "
        f"{found['prices_as_of']}; from {found['measured_reads_per_second_per_cpu']:,} reads/s a CPU here"
    ]
    lines.append(f"{'encoder':12}{'reads':>7}{'nodes':>7} {'instance':14}{'$/h':>8}{'hours':>8}{'$':>8}")
    for row in found["rows"]:
        lines.append(
            f"{row['encoder']:12}{row['reads']:>7}{row['nodes']:>7} {row['instance']:14}"
            f"{row['usd_per_node_hour']:>8.4f}{row['hours']:>8.2f}{row['usd']:>8.2f}"
        )
    lines += [f"   {name.replace('_', ' ')}: {value}" for name, value in found["assumptions"].items()]
    return "\n".join(lines)
