"""Part 2: a whole batch from S3 to S3, ours and three rivals, on two CPUs.

Each way first runs a batch of 4,000 reads: its seconds are what starting and ending take (workers, imports,
compiled code), and it leaves warm what stays warm. Then the batch, timed from the call to the last object
written, with the engine (Ray, Spark) up. All ways do the same work with the same encoder and end with the same
rows, which is checked; ours also keeps the account of every record and commits what it writes.

``share_of_stages`` is the ideal time over the time of our job. The ideal is the CPU time of the stages alone
(parse and filter, encode, write; one process, one thread) divided by the CPUs: no stage ever waits for another.
The S3 server runs on the same CPUs; ``share_with_server`` adds the CPU time that it took during those stages.
At the margin: what the large batch adds to the short one, in time and in reads, so that starting cancels out.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tasks.encoders.kmer import KmerMlp
from tasks.encoders.sequences import Sequences
from tests.benchmarks.phase1.inputs import Input, repeated
from tests.benchmarks.phase1.service import BATCHES, REQUEST, Service, difference, s3_service
from tests.benchmarks.processes import MeasurementFailed, measured

CPUS = 2
WAYS = {"ours": "ours", "loop": "one process, a loop", "ray": "plain Ray Data", "spark": "PySpark"}
TIMES = 4
"""The large batch is the short reads so many times: it shows what is left when starting is paid for."""
CASES = {
    "short": ("kmer-mlp", "sketch"),
    "long": ("kmer-mlp", "sketch"),
    "large": ("kmer-mlp",),
}
TOLERANCE = 1e-5
"""Encoders may add in another order where blocks are cut otherwise."""


def compare(inputs: dict[str, Input]) -> list[dict[str, Any]]:
    """For each input and encoder: rows for each way, and the stages alone."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        encoders = {"kmer-mlp": kmer_mlp(Path(folder), inputs["short"]), "sketch": "sketch://256"}
        large = repeated(inputs["short"], Path(folder) / "large", TIMES, name="large")
        for name, source in {**inputs, "large": large}.items():
            with s3_service(source) as service:
                for encoder in CASES[name]:
                    one = one_case(service, source, encoders[encoder])
                    found.append({"input": name, "encoder": encoder, **one})
    short, large = (case for case in found if case["encoder"] == "kmer-mlp" and case["input"] != "long")
    large["margin"] = margin(short, large)
    return found


def margin(short: dict[str, Any], large: dict[str, Any]) -> dict[str, Any]:
    """Reads/s of every way for what ``large`` has more than ``short``, and our share of the ideal there."""
    seconds = {row["way"]: row.get("seconds") for row in large["rows"]}
    added = {
        row["way"]: seconds[row["way"]] - row["seconds"]
        for row in short["rows"]
        if "seconds" in row and seconds.get(row["way"]) is not None
    }
    reads = large["reads"] - short["reads"]
    return {
        "reads_per_second": {way: round(reads / more) for way, more in added.items() if more > 0},
        "share_of_stages": round(
            (large["ideal_seconds"] - short["ideal_seconds"]) / max(added[WAYS["ours"]], 1e-9), 3
        ),
    }


def one_case(service: Service, source: Input, encoder_uri: str) -> dict[str, Any]:
    """The stages alone, then every way; outputs of the rivals are compared with ours and deleted."""
    service.ask(encoder_uri)
    server = service.cpu_seconds()
    stages = job("stages", service, encoder_uri)
    del stages["peak_memory_bytes"]  # of one process that does everything in turn
    server = service.cpu_seconds() - server
    service.ask(encoder_uri)
    rows, expected = [], None
    for way, name in WAYS.items():
        if way == "spark" and shutil.which("java") is None:
            rows.append({"way": name, "not_measured": "no Java here: install openjdk-17-jre-headless"})
            continue
        if way == "ray" and source.name == "large":
            rows.append(
                {"way": name, "not_measured": "minutes, and it is the slowest of the short batch too"}
            )
            continue
        out = f"{service.data_uri}/{way}"
        try:
            found = job(way, service, encoder_uri, "--out", out, "--request", json.dumps(REQUEST))
        except MeasurementFailed as error:
            if way == "ours":
                raise
            rows.append({"way": name, "not_measured": str(error)[-300:]})
            continue
        if expected is None:
            expected = service.rows(f"{service.data_uri}/batches/{BATCHES[-1]}/embeddings")
        else:
            apart = difference(expected, service.rows(f"{out}/{BATCHES[-1]}/vectors"))
            if apart > TOLERANCE:
                raise AssertionError(f"{name}: its rows are not ours; vectors differ by up to {apart}")
            service.forget(out)
        small, seconds = found["batch_seconds"]
        rows.append(
            {
                "way": name,
                "engine_seconds": found["engine_seconds"],
                "small_batch_seconds": small,
                "seconds": seconds,
                "reads_per_second": round(source.reads / seconds),
                "peak_memory_bytes": found["peak_memory_bytes"],
            }
        )
    assert expected is not None
    return {
        "rows": rows,
        "reads": source.reads,
        "kept": expected.num_rows,
        "stages": stages,
        **shares(stages, server, rows[0]),
    }


def shares(stages: dict[str, Any], server_cpu_seconds: float, ours: dict[str, Any]) -> dict[str, float]:
    """See above."""
    cpu = sum(stage["cpu_seconds"] for stage in stages.values())
    return {
        "ideal_seconds": round(cpu / CPUS, 2),
        "server_cpu_seconds": round(server_cpu_seconds, 2),
        "share_of_stages": round(cpu / CPUS / ours["seconds"], 3),
        "share_with_server": round((cpu + server_cpu_seconds) / CPUS / ours["seconds"], 3),
    }


def job(way: str, service: Service, encoder_uri: str, *options: str) -> dict[str, Any]:
    """One measurement of :mod:`tests.benchmarks.phase1.jobs`."""
    where = ("--data-uri", service.data_uri, "--encoder", encoder_uri, "--batches", *BATCHES)
    return measured("phase1.jobs", way, *where, *options)


def kmer_mlp(folder: Path, source: Input) -> str:
    """The URI of an untrained ``kmer-mlp``: what its weights are does not change its speed."""
    from tests.benchmarks.phase1.rivals import clean_reads

    [table, *_] = clean_reads(source.paths[0].read_bytes(), "first", REQUEST)
    KmerMlp.untrained(Sequences.from_arrow(table["sequence"]), seed=1).save(folder)
    return folder.as_uri()
