"""Errors of the task bodies, written for the person who runs the batch.

StrandloopError
├── InvalidInput        what was asked for or landed is wrong: a retry cannot help
│   ├── InvalidBatch        the batch's manifest, objects or id
│   ├── InvalidReads        a file of reads that cannot be read to its end
│   └── InvalidEncoder      an encoder URI, or files that are not what their card says
├── ConflictingResult   results of another request stand where these would go
└── StorageError        the object store failed or returned other bytes than were written: worth a retry
"""


class StrandloopError(Exception):
    """Base of every error that a task body raises on purpose.

    ``retryable`` says whether the same call may succeed later; Airflow does not retry where it is False.
    """

    retryable = True

    @property
    def exit_status(self) -> int:
        """What a command exits with: 65 (EX_DATAERR of sysexits.h) where a retry cannot help, else 1."""
        return 1 if self.retryable else 65


class InvalidInput(StrandloopError):
    """The request or its data is wrong; running it again gives the same answer."""

    retryable = False


class InvalidBatch(InvalidInput):
    """A batch id, landing manifest or landed object is not as the landing contract says.

    :param problems: one readable line for each problem; all of them are reported at once.
    """

    def __init__(self, batch_id: str, problems: list[str]) -> None:
        self.batch_id = batch_id
        self.problems = problems
        lines = "\n".join(f"  - {problem}" for problem in problems)
        noun = "problem" if len(problems) == 1 else "problems"
        super().__init__(f"batch {batch_id!r} has {len(problems)} {noun}:\n{lines}")


class InvalidReads(InvalidInput):
    """A file of reads is damaged beyond single records, or too many of its records are."""


class InvalidEncoder(InvalidInput):
    """An encoder URI cannot be understood, or the encoder's files do not match its card."""


class ConflictingResult(StrandloopError):
    """A result of another request already stands under this batch's name."""

    retryable = False


class StorageError(StrandloopError):
    """The object store failed, or gave other bytes than were recorded."""
