"""The lines of a text, a window at a time."""

from __future__ import annotations

import numpy as np

from tasks.compiled import compiled
from tasks.reads.compression import Text

LONGEST_LINE_BYTES = 64 << 20  # the longest reads known are a few Mb
_NEWLINE = 10
_RETURN = 13


class LineWindow:
    """The next lines of the text, filled on demand and dropped as they are done with.

    :ivar text: the bytes at hand; every line in them ends with a newline, the file's last one too.
    :ivar damage: why the text ends early, or None. Lines before the damage are still given.
    :ivar cut_last_line: the text's last line had no newline of its own.
    """

    def __init__(self, source: Text) -> None:
        self._source = source
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

    def fill(self, lines: int, *, enough_bytes: int | None = None) -> int:
        """Hold at least ``lines`` lines, fewer only at the end of the text; gives the number at hand.

        :param enough_bytes: hold fewer lines where they have as many bytes together.
        """
        at_hand = len(self._newlines) - self._first
        if at_hand >= lines or self._ended:
            return at_hand
        kept_from = self._start(0)
        pieces = [self.text[kept_from:]]
        newlines = [self._newlines[self._first :] - kept_from]
        size, line_start = len(pieces[0]), (int(newlines[0][-1]) + 1 if at_hand else 0)
        while at_hand < lines and not self._ended and (enough_bytes is None or size < enough_bytes):
            chunk = self._source.read()
            if not chunk:
                self._ended = True
                self.damage = self._source.damage
                if self.damage is None and line_start < size:
                    self.cut_last_line = True
                    chunk = b"\n"
            found = _newlines(np.frombuffer(chunk, dtype=np.uint8), size)
            if len(found):
                line_start = int(found[-1]) + 1
                newlines.append(found)
                at_hand += len(found)
            pieces.append(chunk)
            size += len(chunk)
            if size - line_start > LONGEST_LINE_BYTES:
                self.damage = f"a line is longer than {LONGEST_LINE_BYTES >> 20} MiB: these are no reads"
                self._ended = True
        self._text_offset += kept_from
        self.text = b"".join(pieces)
        self._newlines = np.concatenate(newlines)
        self._first = 0
        return at_hand

    def newlines(self, count: int) -> tuple[int, np.ndarray]:
        """Start in ``text`` of the next line, and where the next ``count`` lines end, int64."""
        return self._start(0), self._newlines[self._first : self._first + count]

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

    def drop_blank(self) -> bool:
        """Be done with the blank lines that come next; whether there were any."""
        dropped = False
        while self.fill(1) and not self.line(0):
            self.drop(1)
            dropped = True
        return dropped

    @property
    def offset(self) -> int:
        """Of the next line's first byte in the whole uncompressed text."""
        return self._text_offset + self._start(0)

    def _start(self, index: int) -> int:
        line = self._first + index
        return int(self._newlines[line - 1]) + 1 if line else 0


@compiled
def _newlines(text: np.ndarray, offset: int) -> np.ndarray:
    """Where newlines are, plus ``offset``, int64; eight bytes at a time, most of which hold none."""
    places = np.empty(len(text), dtype=np.int64)
    found = 0
    words = text[: len(text) // 8 * 8].view(np.uint64)
    for word in range(len(words)):
        zeros = words[word] ^ np.uint64(0x0A0A0A0A0A0A0A0A)  # a byte is zero where a newline was
        if (zeros - np.uint64(0x0101010101010101)) & ~zeros & np.uint64(0x8080808080808080):
            for i in range(8 * word, 8 * word + 8):
                if text[i] == _NEWLINE:
                    places[found] = i + offset
                    found += 1
    for i in range(8 * len(words), len(text)):
        if text[i] == _NEWLINE:
            places[found] = i + offset
            found += 1
    return places[:found].copy()
