"""The S3 server that whole jobs read from and write to, and what they leave there."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from infra.local.environment import read_environment
from infra.local.stack import Stack
from tasks.batches import Batch
from tasks.landing import put
from tasks.object_store import ObjectStore, ObjectUri
from tasks.plan import plan_batch
from tests.benchmarks.phase1.inputs import Input, head_of

BATCHES = ("small", "full")
SMALL_READS = 500
"""Of each file: a batch so small that its seconds are those of starting and ending."""
REQUEST = {
    "top_k": 10,
    "trim_quality": 20,
    "min_length": 40,
    "min_mean_quality": 20.0,
    "max_n_fraction": 0.1,
    "max_quarantine_fraction": 0.01,
    "adapter": "",
    "adapter_mate": "",
    "remove_duplicates": False,
    "window_bases": 0,
    "window_overlap_bases": 0,
    "vector_dtype": "float32",
}


class Service:
    """The server, with the small and the full batch landed."""

    def __init__(self, stack: Stack, data_uri: str) -> None:
        self.stack = stack
        self.data_uri = data_uri
        self.root = ObjectUri.parse(data_uri)
        self.store = ObjectStore()

    def land(self, source: Input, folder: Path) -> None:
        """Land the reads twice: whole, and the first 500 of every file."""
        small = head_of(source, folder / "small", SMALL_READS)
        for batch_id, paths in zip(BATCHES, (small.paths, source.paths), strict=True):
            put(list(paths), Batch(self.data_uri, batch_id), tell=lambda line: None)

    def ask(self, encoder_uri: str) -> None:
        """Forget the results of both batches, and ask for them anew with this encoder."""
        for batch_id in BATCHES:
            asked = {**REQUEST, "encoder": encoder_uri, "replace_results": True}
            plan_batch(self.data_uri, batch_id, asked)

    def rows(self, prefix: str) -> pa.Table:
        """Columns ``read_id`` and ``vector`` of every Parquet file below ``prefix``, by read id."""
        tables = []
        for info in self.store.list(ObjectUri.parse(prefix)):
            if info.uri.name.endswith(".parquet"):
                body = io.BytesIO(self.store.get_bytes(info.uri))
                tables.append(pq.read_table(body, columns=["read_id", "vector"]))
        return pa.concat_tables(tables).sort_by("read_id")

    def forget(self, prefix: str) -> None:
        """Delete what is below ``prefix``."""
        for info in list(self.store.list(ObjectUri.parse(prefix))):
            self.store.delete(info.uri)

    def cpu_seconds(self) -> float:
        """CPU time of the S3 server up to now."""
        record = self.stack.processes.record("ministack")
        assert record is not None
        times = psutil.Process(record.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def s3_service(source: Input) -> Iterator[Service]:
    """An S3 server of its own with the reads of ``source``; its environment is this process's, until the end."""
    with tempfile.TemporaryDirectory(prefix="bench-phase1-") as folder:
        stack = Stack(Path(folder) / "state", free_ports=True)
        before = dict(os.environ)
        try:
            stack.up(("s3",))
            environment = read_environment(stack.layout)
            os.environ.update({name: environment[name] for name in environment if name.startswith("AWS_")})
            service = Service(stack, environment["STRANDLOOP_DATA_URI"])
            service.land(source, Path(folder))
            yield service
        finally:
            stack.down()
            os.environ.clear()
            os.environ.update(before)


def difference(ours: pa.Table, theirs: pa.Table) -> float:
    """Largest difference of any component of any vector; infinite where the read ids are not the same."""
    if ours["read_id"].to_pylist() != theirs["read_id"].to_pylist():
        return float("inf")
    packed = (table["vector"].combine_chunks() for table in (ours, theirs))
    first, second = (np.frombuffer(column.buffers()[1], "<f4") for column in packed)
    return float(np.abs(first - second).max(initial=0))
