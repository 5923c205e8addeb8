"""The lines of a byte stream, plain or gzip, a window at a time."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from gzip import BadGzipFile
from typing import Any, BinaryIO, cast

import numpy as np

from tasks.errors import InvalidReads

try:
    from isal.igzip import IGzipFile as GzipFile  # three times as fast as zlib
except ImportError:  # isal has no build for this machine
    from gzip import GzipFile  # type: ignore[assignment]

LONGEST_LINE_BYTES = 64 << 20  # the longest reads known are a few Mb
_CHUNK_BYTES = 2 << 20
_NEWLINE = 10
_RETURN = 13
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
        # One read of what is below for each call: what comes before the damage is not lost with it.
        self._read_some = _decompressed(stream, source)
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
        if self.damage:
            return b""
        try:
            while size < _CHUNK_BYTES and (piece := self._read_some(_CHUNK_BYTES - size)):
                pieces.append(piece)
                size += len(piece)
        except EOFError:
            self.damage = "the gzip data is cut off"
        except (BadGzipFile, zlib.error) as error:
            self.damage = f"the gzip data is damaged ({error})"
        return b"".join(pieces)


def _decompressed(stream: BinaryIO, source: str) -> Callable[[int], bytes]:
    """The read function for the text of ``stream``, which its first bytes show to be gzip or plain."""
    head = b""
    while len(head) < 5 and (piece := stream.read(5 - len(head))):
        head += piece
    for magic, name in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise InvalidReads(f"{source} is compressed with {name}; compress it with gzip, or not at all")
    whole = io.BufferedReader(_Rejoined(head, stream), _CHUNK_BYTES)
    if not head.startswith(b"\x1f\x8b"):
        return whole.read1
    return cast(Callable[[int], bytes], GzipFile(fileobj=whole, mode="rb").read1)


class _Rejoined(io.RawIOBase):
    """A stream with the bytes put back that were read to look at them."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._head[: len(buffer)] or self._stream.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)
