"""The lines of a byte stream, plain or gzip, a window at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from tasks.errors import InvalidReads

try:
    from isal.igzip_lib import IsalError as DecompressionError
    from isal.isal_zlib import decompressobj  # three times as fast as zlib
except ImportError:  # isal is not built for every machine
    from zlib import decompressobj  # type: ignore[assignment]
    from zlib import error as DecompressionError  # type: ignore[assignment]

LONGEST_LINE_BYTES = 64 << 20  # the longest reads known are a few Mb
_CHUNK_BYTES = 2 << 20
_NEWLINE = 10
_RETURN = 13
_GZIP_BYTES = 64 << 10  # decompressed at once: at most 1032 times as much text, 66 MB
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WBITS = 31  # zlib: gzip header and checksums
_OTHER_FORMATS = {
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


class LineWindow:
    """The next lines of the text, filled on demand and dropped as they are done with.

    :ivar text: the bytes at hand; every line in them ends with a newline, the file's last one too.
    :ivar damage: why the text ends early, or None. Lines before the damage are still given.
    :ivar cut_last_line: the text's last line had no newline of its own.
    """

    def __init__(self, stream: BinaryIO, *, source: str) -> None:
        self._text = _text(stream, source)
        self.text = b""
        self.damage: str | None = None
        self.cut_last_line = False
        self._text_offset = 0  # of text[0] in the whole text
        self._newlines = np.zeros(0, dtype=np.int64)
        self._first = 0  # lines of the window that are dropped already
        self._ended = False

    @property
    def codes(self) -> np.ndarray:
        """``text`` as uint8."""
        return np.frombuffer(self.text, dtype=np.uint8)

    def fill(self, lines: int) -> int:
        """Hold at least ``lines`` lines, fewer only at the end of the text; gives the number at hand."""
        at_hand = len(self._newlines) - self._first
        if at_hand >= lines or self._ended:
            return at_hand
        kept_from = self._start(0)
        pieces = [self.text[kept_from:]]
        newlines = [self._newlines[self._first :] - kept_from]
        size, line_start = len(pieces[0]), (int(newlines[0][-1]) + 1 if at_hand else 0)
        while at_hand < lines and not self._ended:
            chunk = self._read()
            if not chunk:
                self._ended = True
                if self.damage is None and line_start < size:
                    self.cut_last_line = True
                    chunk = b"\n"
            found = np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == _NEWLINE) + size
            if len(found):
                line_start = int(found[-1]) + 1
                newlines.append(found)
                at_hand += len(found)
            pieces.append(chunk)
            size += len(chunk)
            if size - line_start > LONGEST_LINE_BYTES:
                self.damage = f"a line is longer than {LONGEST_LINE_BYTES >> 20} MiB: this is no FASTQ"
                self._ended = True
        self._text_offset += kept_from
        self.text = b"".join(pieces)
        self._newlines = np.concatenate(newlines)
        self._first = 0
        return at_hand

    def lines(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Start and end in ``text`` of the next ``count`` lines, int64, without their line ends."""
        ends = self._newlines[self._first : self._first + count].copy()
        starts = np.empty_like(ends)
        starts[:1] = self._start(0)
        starts[1:] = ends[:-1] + 1
        if count:
            ends -= (self.codes[ends - 1] == _RETURN) & (ends > starts)
        return starts, ends

    def line(self, index: int) -> bytes:
        """The ``index``-th next line without its line end."""
        return self.text[self._start(index) : int(self._newlines[self._first + index])].removesuffix(b"\r")

    def span(self, lines: int) -> tuple[int, int]:
        """Start and end in ``text`` of the next ``lines`` lines, line ends included."""
        return self._start(0), self._start(lines)

    def drop(self, lines: int) -> None:
        """Be done with the next ``lines`` lines."""
        self._first += lines

    @property
    def offset(self) -> int:
        """Of the next line's first byte in the whole uncompressed text."""
        return self._text_offset + self._start(0)

    def _start(self, index: int) -> int:
        line = self._first + index
        return int(self._newlines[line - 1]) + 1 if line else 0

    def _read(self) -> bytes:
        """About a chunk of text, also from a stream that gives a few bytes at a time; empty at the end."""
        pieces: list[bytes] = []
        size = 0
        try:
            while size < _CHUNK_BYTES and (piece := next(self._text, b"")):
                pieces.append(piece)
                size += len(piece)
        except _Damage as damage:  # what came before it is still read
            self.damage = str(damage)
        return b"".join(pieces)


class _Damage(Exception):
    """The compressed data is not what it was when it was written."""


def _text(stream: BinaryIO, source: str) -> Iterator[bytes]:
    """The text of ``stream`` in pieces, none of them empty; its first bytes show whether it is gzip."""
    head = b""
    while len(head) < 5 and (piece := stream.read(5 - len(head))):
        head += piece
    for magic, name in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise InvalidReads(f"{source} is compressed with {name}; compress it with gzip, or not at all")
    if head.startswith(_GZIP_MAGIC):
        yield from filter(None, _gunzipped(head, stream))
        return
    if head:
        yield head
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _gunzipped(data: bytes, stream: BinaryIO) -> Iterator[bytes]:
    """The text of gzip members one after the other, ``data`` being the first bytes of the first.

    zlib's object interface rather than a file reader: a reader loses what it holds when it meets the damage.
    """
    while data:
        if not _GZIP_MAGIC.startswith(data[:2]):
            raise _Damage("something that is not gzip follows the gzip data")
        member = decompressobj(wbits=_GZIP_WBITS)
        while not member.eof:
            if not data and not (data := stream.read(_GZIP_BYTES)):
                raise _Damage("the gzip data is cut off")
            try:
                text = member.decompress(data)
            except DecompressionError as error:  # type: ignore[misc]
                raise _Damage(f"the gzip data is damaged ({error})") from error
            data = member.unused_data
            yield text
        while not (data := data.lstrip(b"\0")) and (data := stream.read(_GZIP_BYTES)):
            pass  # zeros may fill up the last block of a tape or disk
