"""The uncompressed bytes of a stream, whatever it is compressed with, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from backports.zstd import ZstdDecompressor, ZstdError
from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor, IsalError  # three times as fast as zlib

from tasks.errors import InvalidReads

_CHUNK_BYTES = 256 << 10  # fits a core's cache: half as fast again as 2 MiB
_COMPRESSED_BYTES = 64 << 10
_GZIP_MAGIC = b"\x1f\x8b"
_BGZF_HEADER_BYTES = 14  # a gzip header up to the name of its first extra field
_ZSTD_MAGIC = b"(\xb5/\xfd"
_UNREADABLE = {
    b"BZh": "compressed with bzip2; compress it with gzip or zstd, or not at all",
    b"\xfd7zXZ": "compressed with xz; compress it with gzip or zstd, or not at all",
    b"PK\x03\x04": "a zip archive; give the files in it",
    b"CRAM": "CRAM, whose bases may be in another file; make BAM of it: samtools view -b",
    b"\x89HDF": "HDF5 (fast5); call its bases first",
    b"\x8bPOD": "POD5; call its bases first",
    b"NCBI.sra": "an SRA archive; make FASTQ of it: fasterq-dump",
}
_HEAD_BYTES = max(map(len, _UNREADABLE))


class Text:
    """The bytes of a stream as its writer had them: plain, gzip (also of many members, BGZF), or zstd.

    Memory is bounded, however well the data is compressed.

    :ivar source: what errors call the stream.
    :ivar damage: why the bytes end early, or None. What comes before the damage is still given.
    """

    def __init__(self, stream: BinaryIO, *, source: str) -> None:
        self.source = source
        self.damage: str | None = None
        self._pieces = _pieces(stream, source)
        self._ahead = b""

    def head(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer only at the end, which are still to be read."""
        while len(self._ahead) < size and (chunk := self._chunk()):
            self._ahead += chunk
        return self._ahead[:size]

    def read(self) -> bytes:
        """About 256 KiB, also from a stream that gives a few bytes at a time; empty only at the end."""
        ahead, self._ahead = self._ahead, b""
        return ahead or self._chunk()

    def _chunk(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        try:
            while size < _CHUNK_BYTES and (piece := next(self._pieces, b"")):
                pieces.append(piece)
                size += len(piece)
        except _Damage as damage:  # what came before it is still read
            self.damage = str(damage)
        return b"".join(pieces)


class _Damage(Exception):
    """The compressed data is not what it was when it was written."""


def _pieces(stream: BinaryIO, source: str) -> Iterator[bytes]:
    """The text in pieces, none of them empty; the stream's first bytes show what it is compressed with."""
    head = b""
    while len(head) < _HEAD_BYTES and (piece := stream.read(_HEAD_BYTES - len(head))):
        head += piece
    for magic, what in _UNREADABLE.items():
        if head.startswith(magic):
            raise InvalidReads(f"{source} is {what}")
    if head.startswith(_GZIP_MAGIC):
        yield from _gunzipped(head, stream)
        return
    if head.startswith(_ZSTD_MAGIC):
        yield from _unzstd(head, stream)
        return
    if head:
        yield head
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _gunzipped(data: bytes, stream: BinaryIO) -> Iterator[bytes]:
    """The text of gzip members one after the other, ``data`` being the first bytes of the first."""
    while data:
        while len(data) < _BGZF_HEADER_BYTES and (more := stream.read(_BGZF_HEADER_BYTES - len(data))):
            data += more
        if not data.startswith(_GZIP_MAGIC):
            raise _Damage("something that is not gzip follows the gzip data")
        is_bgzf = len(data) > 3 and bool(data[3] & 4) and data[12:14] == b"BC"
        is_empty = True
        member = IgzipDecompressor(flag=DECOMP_GZIP)
        for text in _expanded(member, data, stream, "gzip"):
            is_empty = False
            yield text
        data = member.unused_data
        while not (data := data.lstrip(b"\0")) and (data := stream.read(_COMPRESSED_BYTES)):
            pass  # zeros may fill up the last block of a tape or disk
    if is_bgzf and not is_empty:
        raise _Damage("the empty block that ends every BGZF file is missing: the file is cut off")


def _unzstd(data: bytes, stream: BinaryIO) -> Iterator[bytes]:
    """The text of zstd frames one after the other, ``data`` being the first bytes of the first."""
    while data:
        frame = ZstdDecompressor()
        yield from _expanded(frame, data, stream, "zstd")
        data = frame.unused_data or stream.read(_COMPRESSED_BYTES)


def _expanded(decompressor: Any, data: bytes, stream: BinaryIO, name: str) -> Iterator[bytes]:
    """The text of one member or frame, none of its pieces empty or large.

    Decompressor objects rather than file readers: a reader loses what it holds when it meets the damage.
    """
    while not decompressor.eof:
        if decompressor.needs_input and not data and not (data := stream.read(_COMPRESSED_BYTES)):
            raise _Damage(f"the {name} data is cut off")
        try:
            text = decompressor.decompress(data, _CHUNK_BYTES)
        except (IsalError, ZstdError) as error:  # type: ignore[misc]
            raise _Damage(f"the {name} data is damaged ({error})") from error
        data = b""
        if text:
            yield text
