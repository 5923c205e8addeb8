"""Objects in S3: reads that survive a cut connection, writes that can be conditional.

The client follows boto3's ordinary configuration, so the same code talks to AWS and, through
``AWS_ENDPOINT_URL``, to any S3 server.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tasks.errors import InvalidInput, StorageError

READ_ATTEMPTS = 5
STREAM_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class ObjectUri:
    """``s3://bucket/key``; ``/`` appends to the key, as with a path."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> ObjectUri:
        """Read ``s3://bucket[/key]``; raises :class:`InvalidInput` for anything else."""
        scheme, _, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not bucket:
            raise InvalidInput(f"{text!r} is not an object address; write s3://bucket/prefix")
        return cls(bucket, key.strip("/"))

    def __truediv__(self, name: str) -> ObjectUri:
        return ObjectUri(self.bucket, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class ObjectInfo:
    """What the store says of one object."""

    uri: ObjectUri
    size_bytes: int
    etag: str


class ObjectStore:
    """Whole objects, streams and conditional writes over one S3 client."""

    def __init__(self, client: Any = None) -> None:
        self._client = client or boto3.client(
            "s3", config=Config(retries={"max_attempts": 8, "mode": "standard"})
        )

    def head(self, uri: ObjectUri) -> ObjectInfo | None:
        """Size and etag of an object, or None where there is none."""
        try:
            answer = self._client.head_object(Bucket=uri.bucket, Key=uri.key)
        except ClientError as error:
            if _status(error) == 404:
                return None
            raise _renamed(error, uri) from error
        except BotoCoreError as error:
            raise _renamed(error, uri) from error
        return ObjectInfo(uri, answer["ContentLength"], answer["ETag"])

    def list(self, prefix: ObjectUri) -> Iterator[ObjectInfo]:
        """Every object below ``prefix/``, in key order."""
        below = f"{prefix.key}/" if prefix.key else ""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=prefix.bucket, Prefix=below)
        try:
            for page in pages:
                for entry in page.get("Contents", []):
                    yield ObjectInfo(ObjectUri(prefix.bucket, entry["Key"]), entry["Size"], entry["ETag"])
        except (ClientError, BotoCoreError) as error:
            raise _renamed(error, prefix) from error

    def get_bytes(self, uri: ObjectUri) -> bytes:
        """The whole object in memory: for small ones. Raises FileNotFoundError where there is none."""
        with self.open(uri) as stream:
            return stream.read()

    def get_versioned(self, uri: ObjectUri) -> tuple[bytes, str]:
        """The object's bytes and the etag they belong to, for a later :meth:`put_bytes` with ``if_match``."""
        with self.open(uri) as stream:
            raw = cast(_ResumingStream, cast(io.BufferedReader, stream).raw)
            return stream.read(), raw.etag

    def get_json(self, uri: ObjectUri) -> Any:
        """The object parsed as JSON; raises StorageError where it is not JSON."""
        try:
            return json.loads(self.get_bytes(uri))
        except ValueError as error:
            raise StorageError(f"{uri} is not JSON: {error}") from error

    def open(self, uri: ObjectUri) -> BinaryIO:
        """A buffered stream over the object with bounded memory; a body cut in the middle is resumed.

        The resumed part is asked for with If-Match, so a stream never mixes two versions.
        Raises FileNotFoundError where there is no such object.
        """
        return io.BufferedReader(_ResumingStream(self._client, uri), buffer_size=STREAM_CHUNK_BYTES)

    def download(self, uri: ObjectUri, path: Path) -> str:
        """Write the object to ``path``; gives the SHA-256 of the bytes written."""
        digest = hashlib.sha256()
        with self.open(uri) as stream, path.open("wb") as target:
            while chunk := stream.read(STREAM_CHUNK_BYTES):
                digest.update(chunk)
                target.write(chunk)
        return digest.hexdigest()

    def put_bytes(
        self, uri: ObjectUri, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> bool:
        """Write an object; False where the condition did not hold and nothing was written.

        :param if_absent: write only where no object has this key.
        :param if_match: write only over the version with this etag.
        """
        condition: dict[str, str] = {}
        if if_absent:
            condition["IfNoneMatch"] = "*"
        if if_match is not None:
            condition["IfMatch"] = if_match
        try:
            self._client.put_object(
                Bucket=uri.bucket, Key=uri.key, Body=body, ChecksumAlgorithm="SHA256", **condition
            )
        except ClientError as error:
            if condition and _status(error) in (409, 412):
                return False
            raise _renamed(error, uri) from error
        except BotoCoreError as error:
            raise _renamed(error, uri) from error
        return True

    def put_json(
        self, uri: ObjectUri, value: Any, *, if_absent: bool = False, if_match: str | None = None
    ) -> bool:
        """Write ``value`` as indented JSON with sorted keys; see :meth:`put_bytes`."""
        body = json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"
        return self.put_bytes(uri, body, if_absent=if_absent, if_match=if_match)

    def put_file(self, uri: ObjectUri, path: Path) -> None:
        """Upload a file of any size (multipart where it is large), unconditionally."""
        try:
            self._client.upload_file(
                str(path), uri.bucket, uri.key, ExtraArgs={"ChecksumAlgorithm": "SHA256"}
            )
        except (ClientError, BotoCoreError, boto3.exceptions.S3UploadFailedError) as error:
            raise _renamed(error, uri) from error

    def delete(self, uri: ObjectUri) -> None:
        """Remove one object; no error where there is none."""
        try:
            self._client.delete_object(Bucket=uri.bucket, Key=uri.key)
        except (ClientError, BotoCoreError) as error:
            raise _renamed(error, uri) from error


class _ResumingStream(io.RawIOBase):
    """The body of one GET; after a broken read it asks again from the byte it had reached."""

    def __init__(self, client: Any, uri: ObjectUri) -> None:
        self._client = client
        self._uri = uri
        self._offset = 0
        self.etag = ""
        self._size_bytes = 0
        self._body: Any = None
        self._request()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._offset >= self._size_bytes:
            return 0
        for attempt in range(1, READ_ATTEMPTS + 1):
            try:
                if self._body is None:
                    self._request()
                chunk = self._body.read(len(buffer))
                if not chunk:
                    raise OSError(f"the body ended at byte {self._offset} of {self._size_bytes}")
                break
            except (BotoCoreError, OSError) as error:
                self._body = None
                if attempt == READ_ATTEMPTS:
                    raise _renamed(error, self._uri) from error
                time.sleep(0.1 * 2**attempt)  # back off before asking the same server again
        buffer[: len(chunk)] = chunk
        self._offset += len(chunk)
        return len(chunk)

    def _request(self) -> None:
        resume = {"Range": f"bytes={self._offset}-", "IfMatch": self.etag} if self.etag else {}
        try:
            answer = self._client.get_object(Bucket=self._uri.bucket, Key=self._uri.key, **resume)
        except ClientError as error:
            if _status(error) == 404:
                raise FileNotFoundError(f"there is no object {self._uri}") from error
            raise _renamed(error, self._uri) from error
        self._body = answer["Body"]
        if not self.etag:
            self.etag, self._size_bytes = answer["ETag"], answer["ContentLength"]

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
        super().close()


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _renamed(error: Exception, uri: ObjectUri) -> StorageError:
    return StorageError(f"the object store failed on {uri}: {error}")
