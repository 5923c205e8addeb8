"""Lines of a growing log that arrives in pieces of bytes."""

from __future__ import annotations

#: A line longer than this is passed on in parts, so that memory stays bounded.
LONGEST_LINE = 8192

# Control characters would reach the terminal of whoever reads the task log.
_UNPRINTABLE = {code: None for code in (*range(32), 127) if chr(code) not in "\t\n"}


class LogTail:
    """Cuts bytes into printable lines.

    :param offset: bytes of the log whose lines were passed on. The next piece must begin there: the
        start of a line that is not complete yet is read again.
    """

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self._rest = b""

    def feed(self, piece: bytes) -> list[str]:
        """Take what stands behind ``offset`` now; return the lines that are complete."""
        self._rest = piece
        lines = []
        while self._rest:
            end = self._rest.find(b"\n", 0, LONGEST_LINE) + 1
            if not end:
                if len(self._rest) <= LONGEST_LINE:
                    break
                end = _before_character(self._rest, LONGEST_LINE)
            lines.append(self._take(end))
        return lines

    def finish(self) -> list[str]:
        """Return what is left: a last line without a line end."""
        return [self._take(len(self._rest))] if self._rest else []

    def _take(self, count: int) -> str:
        taken, self._rest = self._rest[:count], self._rest[count:]
        self.offset += count
        return printable(taken)


def _before_character(text: bytes, end: int) -> int:
    """Move a cut back to the start of the UTF-8 character that it would go through."""
    for start in range(end, end - 4, -1):
        if text[start] & 0xC0 != 0x80:
            return start
    return end  # no UTF-8


def printable(line: bytes) -> str:
    """Decode one line. Of a progress bar that is drawn over itself the last drawing is kept."""
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    return text.rpartition("\r")[2].translate(_UNPRINTABLE)
