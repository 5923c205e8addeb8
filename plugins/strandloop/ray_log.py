"""The log of a Ray job, as lines for the task log.

Of what Ray 2.60 offers, ``GET /api/v0/logs/file`` is read, from its start and piece by piece:

- ``GET /api/jobs/<id>/logs`` gives the whole log inside one JSON text: all of it in memory, parsed by one
  call that holds the interpreter lock, and a log with one byte that is not UTF-8 is an error 500 for ever.
- ``/api/jobs/<id>/logs/tail`` needs a websocket, and ``/api/v0/logs/stream`` a connection held open per job,
  of which a head allows a hundred (``RAY_STATE_SERVER_MAX_HTTP_REQUEST``).
- ``/api/v0/logs/file?lines=N`` gives the end of the log, but not where in the log that is.

So memory is one piece, whatever the size of the log. Each look transfers the log up to now; that is paced by
its size (``BYTES_PER_SECOND``), so a log of 100 MB is looked at every 100 s, and once more at the end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

from strandloop.job_progress import PROGRESS_MARK, JobProgress, ProgressPace

#: Of log, that all looks at one job's log may transfer on average.
BYTES_PER_SECOND = 1_000_000

LAST_LINES = 30
LONGEST_LINE = 4_000
# Bytes of an unfinished line that are held, and of the log's end for its last lines.
HELD_BYTES = 4 * LONGEST_LINE
WINDOW_BYTES = 8 * HELD_BYTES
# All but the tabulator and the escape that starts a colour.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]")


def log_path(submission_id: str, *, node_id: str) -> str:
    """Return where the dashboard gives a job's whole log as it is, byte by byte."""
    return f"/api/v0/logs/file?node_id={node_id}&filename=job-driver-{submission_id}.log&lines=-1&timeout=600"


class LogTail:
    """Turns a log that is read from its start, again and again, into the lines that are new.

    A line of :data:`~strandloop.job_progress.PROGRESS_MARK` becomes a line about the progress, at its pace.

    :param offset: bytes of the log that were shown before; they end with a line.
    :param clock: seconds, of any clock that only goes forward.
    """

    def __init__(self, offset: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.offset = offset
        self._clock = clock
        self._pace = ProgressPace()
        self._window = b""
        self.begin()

    def begin(self) -> None:
        """Start to read the log from its first byte."""
        self.position = 0
        self._held, self._cut = b"", 0

    def take(self, piece: bytes) -> list[str]:
        """Take the next bytes of the log and return the lines to show."""
        # A read that gives nothing leaves the end that was seen before.
        self._window = ((self._window if self.position else b"") + piece)[-WINDOW_BYTES:]
        start, self.position = self.position, self.position + len(piece)
        if self.position <= self.offset:
            return []
        fresh = piece[max(0, self.offset - start) :]
        ended, newline, rest = fresh.rpartition(b"\n")
        shown = []
        if newline:
            first, *others = ended.split(b"\n")
            shown = [*self._shown(self._held + first, self._cut)]
            for line in others:
                shown += self._shown(line)
            self._held, self._cut = b"", 0
            self.offset = self.position - len(rest)
        self._hold(self._held + rest)
        return shown

    def finish(self) -> list[str]:
        """Return what stands behind the last line end: the log has ended."""
        shown = list(self._shown(self._held, self._cut)) if self._held else []
        self.offset = max(self.offset, self.position)
        self._held, self._cut = b"", 0
        return shown

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The end of what was read, whether it was shown here or before."""
        lines = self._window.decode("utf-8", "replace").removesuffix("\n").split("\n")
        said = [_printable(line) for line in lines if not line.startswith(PROGRESS_MARK)]
        return tuple(said[-LAST_LINES:]) if self._window else ()

    def _hold(self, line: bytes) -> None:
        # A progress bar rewrites its line: what was overwritten need not be held.
        line = line[max(0, line.rstrip(b"\r").rfind(b"\r")) :]
        self._cut += max(0, len(line) - HELD_BYTES)
        self._held = line[:HELD_BYTES]

    def _shown(self, line: bytes, cut: int = 0) -> Iterator[str]:
        text = line.decode("utf-8", "replace")
        if text.startswith(PROGRESS_MARK) and JobProgress.read(text.removeprefix(PROGRESS_MARK)):
            if progress := self._pace.line(text.removeprefix(PROGRESS_MARK), now=self._clock()):
                yield progress
        else:
            yield _printable(text, size=len(line) + cut)


def _printable(line: str, *, size: int = 0) -> str:
    """Return one line as it can be shown.

    :param size: its bytes, where that is more than it has characters.
    """
    # A progress bar rewrites its line behind carriage returns: its last state is what a terminal shows.
    line = line.rstrip("\r").rpartition("\r")[2]
    line = CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", line)
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} … ({max(size, len(line)):,} bytes)"
