"""Part 2's rivals: what a good engineer would write in an afternoon, with dnaio, cutadapt and the same encoder.

All three share these pieces: read an object, trim and filter, encode, write a shard of vectors and one of reads.
They keep no account of what they reject, check nothing that they write, and cannot go on where they were ended.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

BLOCK_READS = 20_000
SCHEMA = pa.schema(
    {
        "read_id": pa.string(),
        "name": pa.string(),
        "sequence": pa.string(),
        "length": pa.int32(),
        "mean_quality": pa.float32(),
    }
)


def clean_reads(body: bytes, sample: str, request: dict[str, Any]) -> Iterator[pa.Table]:
    """The reads kept of one gzip FASTQ file, in tables of at most 20,000.

    :param request: fields of :class:`tasks.batches.BatchRequest`.
    """
    import dnaio
    import xopen
    from cutadapt.qualtrim import quality_trim_index

    cutoff, min_length = request["trim_quality"], max(request["min_length"], 1)
    lowest_mean, most_n = request["min_mean_quality"], request["max_n_fraction"]
    rows: list[tuple[str, str, str, int, float]] = []
    with xopen.xopen(io.BytesIO(body), "rb", threads=0) as text, dnaio.open(text) as reader:
        for number, record in enumerate(reader, 1):
            _, stop = quality_trim_index(record.qualities, 0, cutoff)
            if stop < min_length:
                continue
            sequence = record.sequence[:stop]
            mean = sum(record.qualities[:stop].encode()) / stop - 33
            if mean < lowest_mean or sequence.count("N") / stop > most_n:
                continue
            rows.append((f"{sample}:{number}", record.name, sequence, stop, mean))
            if len(rows) == BLOCK_READS:
                yield _table(rows)
                rows = []
    if rows:
        yield _table(rows)


def _table(rows: list[tuple[str, str, str, int, float]]) -> pa.Table:
    return pa.table(list(map(list, zip(*rows, strict=True))), schema=SCHEMA)


def keys_of(data_uri: str, batch_id: str) -> list[tuple[str, str]]:
    """Sample and address of every landed file."""
    from tasks.batches import Batch
    from tasks.landing import read_manifest
    from tasks.object_store import ObjectStore

    batch = Batch(data_uri, batch_id)
    landing, _ = read_manifest(ObjectStore(), batch)
    return [
        (sample.name, str(batch.landing / file.key)) for sample in landing.samples for file in sample.files
    ]


def encoder_of(uri: str, data_uri: str) -> Any:
    """The encoder that the job uses as well, on one thread."""
    import torch

    from tasks.encoders.protocol import load_encoder
    from tasks.object_store import ObjectStore, ObjectUri

    torch.set_num_threads(1)
    return load_encoder(uri, encoders=ObjectUri.parse(data_uri) / "encoders", store=ObjectStore())


def do_file(encoder: Any, sample: str, key: str, out: str, request: dict[str, Any]) -> int:
    """Read, clean, encode and write one file; gives the number of reads kept."""
    import pyarrow.parquet as pq

    from hpc_jobs.store import shard_bytes
    from tasks.object_store import ObjectStore, ObjectUri

    store, target, kept = ObjectStore(), ObjectUri.parse(out), 0
    for number, table in enumerate(clean_reads(store.get_bytes(ObjectUri.parse(key)), sample, request)):
        vectors = encoder.encode(table)
        ids = table["read_id"].combine_chunks()
        store.put_bytes(target / f"vectors/{sample}-{number}.parquet", shard_bytes(ids, vectors))
        reads = io.BytesIO()
        pq.write_table(table, reads, compression="zstd")
        store.put_bytes(target / f"reads/{sample}-{number}.parquet", reads.getvalue())
        kept += table.num_rows
    return kept


class Loop:
    """(a) One process, one file after the other."""

    def __init__(self, data_uri: str, encoder_uri: str) -> None:
        self.data_uri = data_uri
        self.encoder = encoder_of(encoder_uri, data_uri)

    def run(self, batch_id: str, out: str, request: dict[str, Any]) -> int:
        files = keys_of(self.data_uri, batch_id)
        return sum(do_file(self.encoder, sample, key, out, request) for sample, key in files)


class PlainRay:
    """(b) ``read_binary_files`` -> parse -> encode -> ``write_parquet``, with Ray Data's own defaults."""

    def __init__(self, data_uri: str, encoder_uri: str, cpus: int) -> None:
        start_ray(cpus)
        self.data_uri = data_uri
        self.encoder_uri = encoder_uri
        self.encoders = max(1, cpus - 1)

    def run(self, batch_id: str, out: str, request: dict[str, Any]) -> int:
        import ray
        from pyarrow.fs import S3FileSystem

        scheme, _, endpoint = os.environ["AWS_ENDPOINT_URL"].partition("://")
        files = S3FileSystem(scheme=scheme, endpoint_override=endpoint)
        samples = {key.removeprefix("s3://"): sample for sample, key in keys_of(self.data_uri, batch_id)}
        data_uri, encoder_uri = self.data_uri, self.encoder_uri

        def parse(rows: dict[str, Any]) -> Iterator[pa.Table]:
            for path, body in zip(rows["path"], rows["bytes"], strict=True):
                yield from clean_reads(body, samples[path], request)

        class Encode:
            def __init__(self) -> None:
                self.encoder = encoder_of(encoder_uri, data_uri)

            def __call__(self, table: pa.Table) -> pa.Table:
                vectors = self.encoder.encode(table)
                packed = pa.Array.from_buffers(
                    pa.binary(4 * vectors.shape[1]), len(vectors), [None, pa.py_buffer(vectors)]
                )
                return table.append_column("vector", packed)

        written = (
            ray.data.read_binary_files(list(samples), filesystem=files, include_paths=True)
            .map_batches(parse, batch_size=1)
            .map_batches(
                Encode,
                batch_format="pyarrow",
                batch_size=4096,
                compute=ray.data.ActorPoolStrategy(size=self.encoders),
            )
        )
        written.write_parquet(f"{out.removeprefix('s3://')}/vectors", filesystem=files)
        return -1  # counted when the output is checked


class Spark:
    """(c) ``local[cpus]``, one task a file in ``mapInArrow``: reading, encoding and writing in one Python worker.

    Spark's own S3 connector is a Java library that PyPI does not have, so objects are read and written by boto3
    in the Python worker. That spares Spark the way of every read through the JVM.
    """

    def __init__(self, data_uri: str, encoder_uri: str, cpus: int) -> None:
        from pyspark.sql import SparkSession

        self.data_uri = data_uri
        self.encoder_uri = encoder_uri
        os.environ["PYSPARK_PYTHON"] = sys.executable  # else the first python3 on the PATH
        settings = {
            "spark.ui.enabled": "false",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.sql.execution.arrow.maxRecordsPerBatch": "1",
        }
        builder = SparkSession.builder.master(f"local[{cpus}]")
        for name, value in settings.items():
            builder = builder.config(name, value)
        self.session = builder.getOrCreate()

    def run(self, batch_id: str, out: str, request: dict[str, Any]) -> int:
        data_uri, encoder_uri = self.data_uri, self.encoder_uri

        def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            encoder = encoder_of(encoder_uri, data_uri)
            for batch in batches:
                for row in batch.to_pylist():
                    kept = do_file(encoder, row["sample"], row["key"], out, request)
                    yield pa.RecordBatch.from_pydict({"kept": pa.array([kept], pa.int64())})

        files = keys_of(data_uri, batch_id)
        rows = self.session.createDataFrame(files, "sample string, key string").repartition(len(files))
        return int(rows.mapInArrow(work, "kept long").groupBy().sum("kept").collect()[0][0])


def start_ray(cpus: int) -> None:
    """A Ray of this process's own on so many CPUs, whose workers have this process's environment."""
    import uuid

    import ray

    os.environ["RAY_AUTH_TOKEN"] = uuid.uuid4().hex  # else ray.init() leaves one in the home directory
    os.environ["RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE"] = "1"
    ray.init(
        address="local",  # another cluster on this machine is not ours to measure on
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=1 << 30,
    )
