"""Fetching through huggingface_hub from a server that speaks the Hub's endpoints."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save

from tasks.encoders.protocol import Encoder
from tasks.errors import InvalidEncoder, StorageError

COMMIT = "7bce263b15377fc15361f52cfab88f8b586abda0"
MODEL = "org/DNABERT-2-117M"
READS = pa.table({"sequence": ["ACGTTGCAACGTTTG" * 3, "GGGCCATT"]})


class Hub(ThreadingHTTPServer):
    """One model at one commit. Weights are announced as large files (SHA-256), the rest by git's blob id."""

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.announced: dict[str, dict[str, object]] = {}
        self.downloads: list[str] = []
        for path in directory.iterdir():
            self.publish(path.name, path.read_bytes())

    def publish(self, name: str, body: bytes) -> None:
        self.files[name] = body
        self.announced[name] = self._siblings(name, body)

    def _siblings(self, name: str, body: bytes) -> dict[str, object]:
        blob = {
            "rfilename": name,
            "size": len(body),
            "blobId": hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest(),
        }
        if name.endswith((".bin", ".safetensors")):
            blob["lfs"] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
        return blob


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if path == f"/api/models/{MODEL}/revision/{COMMIT}":
            info = {"id": MODEL, "sha": COMMIT, "siblings": list(self.server.announced.values())}
            return self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, with_body)
        if path == f"/{MODEL}/resolve/{COMMIT}/{name}" and name in self.server.files:
            if with_body:
                self.server.downloads.append(name)
            etag = self.server.announced[name]["blobId"]
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
            return self._send(200, self.server.files[name], headers, with_body)
        missing = "RevisionNotFound" if path.startswith(f"/api/models/{MODEL}/") else "RepoNotFound"
        return self._send(404, b"{}", {"X-Error-Code": missing}, with_body)

    def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def hub(model_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    directory = shutil.copytree(model_of("dnabert-2"), tmp_path / "published")
    (directory / "README.md").write_text("about the model")
    (directory / "bert_layers.py").write_text("raise SystemExit('this code was run')")
    server = Hub(directory)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("STRANDLOOP_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_of_the_hub_is_fetched_once(
    hub: Hub, load: Callable[[str], Encoder], model_of: Callable[[str], Path]
) -> None:
    uri = f"hf://{MODEL}@{COMMIT}"
    first = load(uri)
    assert sorted(hub.downloads) == ["bert_layers.py", "config.json", "pytorch_model.bin", "tokenizer.json"]
    assert first.uri == uri
    np.testing.assert_array_equal(first.encode(READS), load(model_of("dnabert-2").as_uri()).encode(READS))
    assert load(uri).revision == first.revision
    assert len(hub.downloads) == 4


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.fixture
def sharded(hub: Hub, model_of: Callable[[str], Path]) -> Hub:
    """The hub's model has its weights in two files as well."""
    weights = torch.load(model_of("dnabert-2") / "pytorch_model.bin", weights_only=True)
    names = [name for name in weights if not name.startswith("cls.")]
    halves = dict(zip(SHARDS, (names[::2], names[1::2]), strict=True))
    for shard, half in halves.items():
        hub.publish(shard, save({name: weights[name] for name in half}))
    places = {name: shard for shard, half in halves.items() for name in half}
    hub.publish("model.safetensors.index.json", json.dumps({"weight_map": places}).encode())
    return hub


def test_weights_in_several_files_are_one_model(
    sharded: Hub, load: Callable[[str], Encoder], model_of: Callable[[str], Path]
) -> None:
    encoder = load(f"hf://{MODEL}@{COMMIT}")
    assert {*SHARDS, "model.safetensors.index.json"} < set(sharded.downloads)
    assert "pytorch_model.bin" not in sharded.downloads
    whole = load(model_of("dnabert-2").as_uri())
    np.testing.assert_array_equal(encoder.encode(READS), whole.encode(READS))


def test_each_of_several_files_is_verified(sharded: Hub, load: Callable[[str], Encoder]) -> None:
    body = sharded.files[SHARDS[1]]
    sharded.files[SHARDS[1]] = body[:-1] + bytes([body[-1] ^ 1])
    with pytest.raises(StorageError, match=f"{SHARDS[1]} of hf://.* but the Hub lists"):
        load(f"hf://{MODEL}@{COMMIT}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda files: files.pop(SHARDS[0]), f"names 2 files of weights, but {SHARDS[0]} is not beside it"),
        (lambda files: files.update({"model.safetensors.index.json": b"{}"}), "it has no weight_map"),
        (
            lambda files: files.update({SHARDS[0]: files[SHARDS[1]]}),
            "(?s)not those of a DNABERT-2: .*Missing key",
        ),
    ],
)
def test_part_of_the_weights_is_refused(
    damage: Callable[[dict[str, bytes]], object],
    message: str,
    sharded: Hub,
    load: Callable[[str], Encoder],
    tmp_path: Path,
) -> None:
    files = dict(sharded.files)
    del files["pytorch_model.bin"]
    damage(files)
    directory = tmp_path / "copied"
    directory.mkdir()
    for name, body in files.items():
        (directory / name).write_bytes(body)
    with pytest.raises(InvalidEncoder, match=message):
        load(directory.as_uri())


@pytest.mark.parametrize("damaged", ["pytorch_model.bin", "config.json"])
def test_other_bytes_than_announced_are_refused_and_not_kept(
    damaged: str, hub: Hub, load: Callable[[str], Encoder], tmp_path: Path
) -> None:
    whole = hub.files[damaged]
    hub.files[damaged] = whole[:-1] + b"?"
    with pytest.raises(StorageError, match=f"{damaged} of hf://.* but the Hub lists"):
        load(f"hf://{MODEL}@{COMMIT}")
    hub.files[damaged] = whole
    assert load(f"hf://{MODEL}@{COMMIT}").dim == 24


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (f"hf://{MODEL}@{'0' * 40}", f"{MODEL} has no commit 0000"),
        (f"hf://org/unknown@{COMMIT}", "has no public model org/unknown; set HF_TOKEN"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    uri: str, message: str, hub: Hub, load: Callable[[str], Encoder]
) -> None:
    with pytest.raises(InvalidEncoder, match=message):
        load(uri)


def test_a_model_without_config_is_refused(hub: Hub, load: Callable[[str], Encoder]) -> None:
    del hub.announced["config.json"]
    with pytest.raises(InvalidEncoder, match=r"holds no config\.json"):
        load(f"hf://{MODEL}@{COMMIT}")


def test_where_the_hub_is_out_of_reach_it_is_said_what_to_do(
    hub: Hub, load: Callable[[str], Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        StorageError, match=r"(?s)cannot be fetched from http://127\.0\.0\.1:9.*`hf download .* file:///"
    ):
        load(f"hf://{MODEL}@{COMMIT}")
