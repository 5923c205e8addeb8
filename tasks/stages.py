"""The two stages of the Ray pipeline, and the rows that travel through it.

A sample goes into a reader and comes out as parts, one row each; an encoder actor takes a part and gives one
row that says what became of it. The reads travel as Arrow IPC in one binary value, which the encoder reads
where it lies in shared memory. What is wrong with the batch travels as a row too: raised here, it would reach
people as a Ray traceback.
"""

from __future__ import annotations

import json
import pickle
import resource
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from threadpoolctl import threadpool_limits

from tasks.batches import Batch, BatchRequest
from tasks.encoders.protocol import load_encoder
from tasks.errors import StorageError, StrandloopError
from tasks.landing import LandedSample
from tasks.object_store import ObjectStore
from tasks.parts import Part, SkippedPart, parts_of
from tasks.shards import commit_part, committed, encode_part

PART_ROW = pa.schema(
    {
        "name": pa.string(),
        "records": pa.int64(),
        "reads": pa.large_binary(),  # Arrow IPC stream; null where the part is skipped or failed
        "facts": pa.large_binary(),  # pickled (accounting, quarantined)
        "failure": pa.binary(),  # pickled StrandloopError
        "read_seconds": pa.float64(),
        "reader_peak_bytes": pa.int64(),
    }
)
DONE_ROW = pa.schema(
    {
        "name": pa.string(),
        "records": pa.int64(),
        "commit": pa.large_binary(),  # JSON of the commit; null where an earlier run committed the part
        "failure": pa.binary(),
        "read_seconds": pa.float64(),
        "encode_seconds": pa.float64(),
        "gpu_seconds": pa.float64(),
        "store_seconds": pa.float64(),
        "reader_peak_bytes": pa.int64(),
        "encoder_peak_bytes": pa.int64(),
    }
)
"""``*_seconds`` is the CPU time of the thread that did it, of ``gpu`` the time that passed; ``*_peak_bytes`` the
most resident memory of the process so far."""


class ReadParts:
    """Reader: one sample -> its parts, each a row of :data:`PART_ROW`."""

    def __init__(self, batch: Batch, request: BatchRequest) -> None:
        self.batch = batch
        self.request = request

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Give the parts as they are parsed; ``rows`` has one column, ``sample``, pickled."""
        for packed in rows["sample"].to_pylist():
            try:
                yield from self._parts(pickle.loads(packed))
            except StrandloopError as error:
                yield _row(PART_ROW, name="", failure=pickle.dumps(error))

    def _parts(self, sample: LandedSample) -> Iterator[pa.Table]:
        store = ObjectStore()
        skip = committed(store, self.batch)
        started = time.thread_time()
        for part in parts_of(store, self.batch, self.request, sample, skip=skip):
            row: dict[str, Any] = {"name": part.name}
            if isinstance(part, SkippedPart):
                row["records"] = part.records
            else:
                row["records"] = part.accounting.records
                row["reads"] = _packed(part.reads)
                row["facts"] = pickle.dumps((part.accounting, part.quarantined))
            row["read_seconds"] = time.thread_time() - started
            yield _row(PART_ROW, **row, reader_peak_bytes=_peak_bytes())
            started = time.thread_time()


class EncodeAndCommit:
    """Encoder actor: the encoder is loaded once; then every part is encoded and committed.

    Called from more threads than may encode at a time: an upload waits for the network, and encoding need not.

    :param threads: that may encode at a time.
    """

    def __init__(self, batch: Batch, request: BatchRequest, encoder_uri: str, threads: int = 1) -> None:
        self.batch = batch
        self.dtype = request.vector_dtype
        self.store = ObjectStore()
        self.encoding = threading.Semaphore(threads)
        self.failure: StrandloopError | None = None
        try:
            self.encoder = load_encoder(encoder_uri, encoders=batch.encoders, store=self.store)
        except StrandloopError as error:
            self.failure = error
        except OSError as error:
            self.failure = StorageError(f"{encoder_uri} cannot be loaded on a worker: {error}")
        # A thread of ours is all that computes a vector: what others would add depends on the machine, and so
        # would the last bits. Importing torch is two seconds of a worker's start; not every encoder needs it.
        threadpool_limits(limits=1)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Rows of :data:`PART_ROW` -> rows of :data:`DONE_ROW`."""
        return pa.concat_tables([self._done(rows.slice(number, 1)) for number in range(len(rows))])

    def _done(self, row: pa.Table) -> pa.Table:
        known = row.drop_columns(["reads", "facts"]).to_pylist()[0]
        if known["failure"] is None and row["reads"].null_count == 0:
            try:
                known |= self._commit(known["name"], row["reads"][0].as_buffer(), row["facts"][0].as_py())
            except StrandloopError as error:
                known["failure"] = pickle.dumps(error)
        return _row(DONE_ROW, **known, encoder_peak_bytes=_peak_bytes())

    def _commit(self, name: str, reads: pa.Buffer, facts: bytes) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        with pa.ipc.open_stream(reads) as stream:
            part = Part(name, stream.read_all(), *pickle.loads(facts))
        with self.encoding:
            started, wall_started = time.thread_time(), time.monotonic()
            vectors = encode_part(part, self.encoder, self.dtype)
            encoded, passed = time.thread_time(), time.monotonic() - wall_started
        commit = commit_part(self.store, self.batch, part, vectors, dtype=self.dtype)
        device = str(getattr(self.encoder, "device", "cpu"))
        return {
            "commit": json.dumps(commit.to_json()).encode(),
            "encode_seconds": encoded - started,
            "gpu_seconds": passed if device.startswith("cuda") else 0.0,
            "store_seconds": time.thread_time() - encoded,
        }


def _row(schema: pa.Schema, **values: Any) -> pa.Table:
    return pa.table({name: [values.get(name)] for name in schema.names}, schema=schema)


def _packed(reads: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, reads.schema) as stream:
        stream.write_table(reads)
    return sink.getvalue().to_pybytes()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux: KiB
