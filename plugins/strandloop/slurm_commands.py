"""The commands that are run on a cluster's login node, and readers of what they print. All pure.

Commands are argument lists; where several must be one round trip, a constant shell script takes them
as positional parameters, so that nothing is ever pasted into shell text.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from strandloop.slurm_evidence import Answer, Evidence

SUBMITTED, EXIT, VERDICT, OWNER = "submitted.json", "exit.json", "verdict.json", "owner"
SCRIPT, LOG = "script.sbatch", "job.log"

# A non-interactive SSH session reads no profile, which is where ParallelCluster adds its Slurm.
# Times in UTC, text in English, and no command hangs longer than this while a controller is down.
_SETTINGS = """PATH=$PATH:/opt/slurm/bin
slurm() { TZ=UTC LC_ALL=C SLURM_TIME_FORMAT=standard timeout 30 "$@" 2>&1; }
"""

_LOOKUP = (
    _SETTINGS
    + """
for dir in "$1"/*/; do
    [ -d "$dir" ] || continue
    printf '\\n@attempt %s\\n' "$(basename "$dir")"
    for file in submitted.json owner exit.json verdict.json; do
        [ -f "$dir/$file" ] && printf '\\n@file %s\\n' "$file" && cat "$dir/$file"
    done
done
text=$(slurm squeue --noheader --name "$2" --format='%A|%T|%r'); rc=$?
printf '\\n@squeue %s\\n%s\\n' "$rc" "$text"
text=$(slurm scontrol show config); rc=$?
printf '\\n@config %s\\n%s\\n' "$rc" "$text"
"""
)

_POLL = (
    _SETTINGS
    + """
for file in exit verdict; do
    [ -f "$1/$file.json" ] && printf '\\n@%s 0\\n' "$file" && cat "$1/$file.json"
done
text=$(slurm scontrol show job --oneliner "$2"); rc=$?
printf '\\n@scontrol %s\\n%s\\n' "$rc" "$text"
if [ "$rc" -ne 0 ]; then
    text=$(slurm squeue --noheader --states=all --jobs "$2" --format='%A|%j|%T|%r|%D|%N'); rc=$?
    printf '\\n@squeue %s\\n%s\\n' "$rc" "$text"
    text=$(slurm sacct --noheader --parsable2 --allocations --duplicates --jobs "$2" \\
        --format=JobIDRaw,JobName,State,ExitCode,Start,End,NNodes,NodeList); rc=$?
    printf '\\n@sacct %s\\n%s\\n' "$rc" "$text"
fi
# How far a reader has got is kept beside the log, so that it outlives the process that reads.
mark=$1/read.$3
offset=$4
if [ -z "$offset" ]; then
    offset=$(cat "$mark" 2>/dev/null) || offset=0
elif [ "$offset" != 0 ] && [ "$offset" != "$(cat "$mark" 2>/dev/null)" ]; then
    printf '%s' "$offset" > "$mark.tmp" && mv -f "$mark.tmp" "$mark"
fi
printf '\\n@log %s\\n' "$offset"
if [ -f "$1/job.log" ]; then
    tail -c "+$((offset + 1))" "$1/job.log" | head -c "$5"
fi
"""
)

_WRITE = """
mkdir -p "$(dirname "$1")" && cat > "$1.tmp" && sync "$1.tmp" && mv -f "$1.tmp" "$1"
"""

_LOG_END = """
[ ! -f "$2/job.log" ] || tail -c "$3" "$2/job.log"
"""

#: Bytes of log that a failure shows.
LOG_END = 4096


@dataclass(frozen=True)
class Command:
    """One command for the login node: arguments, and what it reads from its standard input."""

    args: tuple[str, ...]
    stdin: bytes = b""


def look_up(identity_dir: str, *, name: str) -> Command:
    """List the attempts under one job identity, and the jobs of that name that are in the queue."""
    return _shell(_LOOKUP, identity_dir, name)


def poll(job_dir: str, *, job_id: str, reader: str, offset: int | None, limit: int) -> Command:
    """Gather all evidence about one job, and the next ``limit`` bytes of its log.

    :param reader: names who reads the log; each reader has a place of its own in it.
    :param offset: bytes of the log that this reader has passed on; ``None`` to go on where it stopped.
    """
    return _shell(_POLL, job_dir, job_id, reader, "" if offset is None else str(offset), str(limit))


def write_file(path: str, content: bytes) -> Command:
    """Write a file so that it is there whole or not at all, with the directories above it."""
    return _shell(_WRITE, path, stdin=content)


def conclude(job_dir: str, *, verdict: str) -> Command:
    """Write down how a job ended, before Slurm forgets it, and print the end of its log."""
    path = posixpath.join(job_dir, VERDICT)
    return _shell(_WRITE + _LOG_END, path, job_dir, str(LOG_END), stdin=verdict.encode())


def submit(batch_script: str, *, job_dir: str, name: str, options: list[str]) -> Command:
    """Submit a batch script, held, so that the queue can be looked at before anything runs."""
    own = [
        "--parsable",
        "--hold",
        f"--job-name={name}",
        f"--chdir={job_dir}",
        f"--output={posixpath.join(job_dir, LOG)}",
        "--open-mode=append",
    ]
    return _slurm("sbatch", *options, *own, stdin=batch_script.encode())


def release(job_id: str) -> Command:
    """Let a held job run."""
    return _slurm("scontrol", "release", job_id)


def cancel(job_id: str) -> Command:
    """Cancel one job by its number."""
    return _slurm("scancel", job_id)


def cancel_by_name(name: str) -> Command:
    """Cancel whatever lives under a job identity."""
    return _slurm("scancel", f"--name={name}")


def queued(name: str) -> Command:
    """List the jobs of this name that are waiting, running or completing."""
    return _slurm("squeue", "--noheader", "--name", name, "--format=%A|%T|%r")


def usable_nodes() -> Command:
    """List each node of each partition with its state."""
    return _slurm("sinfo", "--noheader", "--Node", "--format=%N|%T|%P")


def controller() -> Command:
    """Show the controller's configuration."""
    return _slurm("scontrol", "show", "config")


@dataclass(frozen=True)
class QueuedJob:
    """One row of ``squeue``."""

    job_id: str
    code: str
    why: str

    @property
    def held_by_us(self) -> bool:
        """Submitted, and not yet released."""
        return self.code == "PENDING" and self.why == "JobHeldUser"


@dataclass(frozen=True)
class Attempt:
    """What stands in the directory of one attempt."""

    number: int
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def submitted(self) -> dict[str, str]:
        """What was noted after the submission; empty if nothing was."""
        try:
            return dict(json.loads(self.files.get(SUBMITTED, "{}")))
        except ValueError:
            return {}

    @property
    def job_id(self) -> str | None:
        """The job of this attempt: the one that started first, else the one that was noted."""
        owner = self.files.get(OWNER, "").strip()
        return owner or self.submitted.get("job_id")


@dataclass(frozen=True)
class Lookup:
    """Answer to :func:`look_up`.

    :param jobs: living jobs of this identity, oldest number first.
    :param controller_error: what squeue said instead of an answer; empty if it answered.
    """

    attempts: tuple[Attempt, ...]
    jobs: tuple[QueuedJob, ...]
    cluster: str
    controller_error: str


def parse_lookup(output: bytes) -> Lookup:
    """Read what :func:`look_up` prints."""
    attempts: list[Attempt] = []
    jobs: tuple[QueuedJob, ...] = ()
    cluster, error = "", "no answer"
    for name, value, text in _sections(output.decode("utf-8", "replace")):
        if name == "attempt" and value.isdigit():
            attempts.append(Attempt(int(value), {}))
        elif name == "file" and attempts:
            last = attempts.pop()
            attempts.append(Attempt(last.number, {**last.files, value: text}))
        elif name == "squeue":
            error = "" if value == "0" else f"squeue: exit status {value}, {text.strip()}"
            jobs = parse_queued(text) if not error else ()
        elif name == "config" and value == "0":
            cluster = parse_cluster(text)
    return Lookup(tuple(sorted(attempts, key=lambda a: a.number)), jobs, cluster, error)


def parse_queued(text: str) -> tuple[QueuedJob, ...]:
    """Read ``squeue --format=%A|%T|%r``, oldest number first."""
    rows = [line.strip().split("|") for line in text.splitlines()]
    jobs = {QueuedJob(*row) for row in rows if len(row) == 3 and row[0].isdigit()}
    return tuple(sorted(jobs, key=lambda job: int(job.job_id)))


def parse_cluster(text: str) -> str:
    """Name the controller: ``ClusterName`` and when it started, from ``scontrol show config``."""
    found = dict(re.findall(r"^(ClusterName|BOOT_TIME)\s*=\s*(\S+)", text, re.MULTILINE))
    return f"{found.get('ClusterName', '?')}@{found.get('BOOT_TIME', '?')}"


def parse_job_id(text: str) -> str | None:
    """Read ``sbatch --parsable``: a number, on some clusters followed by ``;cluster``."""
    match = re.search(r"^(\d+)(;\S*)?\s*$", text, re.MULTILINE)
    return match[1] if match else None


def parse_poll(output: bytes, *, job_id: str, name: str) -> tuple[Evidence, int, bytes]:
    """Read what :func:`poll` prints: the evidence, the log offset, and the log bytes from there.

    :raises ValueError: if the answer was cut before the log began.
    """
    head, mark, rest = output.partition(b"\n@log ")
    if not mark or b"\n" not in rest:
        raise ValueError(f"cut answer from the login node: {output[-300:]!r}")
    offset, _, log = rest.partition(b"\n")
    texts: dict[str, str] = {}
    answers: dict[str, Answer] = {}
    for section, value, text in _sections(head.decode("utf-8", "replace")):
        texts[section] = text
        answers[section] = Answer(int(value), text.strip())
    evidence = Evidence(
        job_id=job_id,
        name=name,
        exit_file=texts.get("exit"),
        verdict=texts.get("verdict"),
        scontrol=answers.get("scontrol"),
        squeue=answers.get("squeue"),
        sacct=answers.get("sacct"),
    )
    return evidence, int(offset), log


def _sections(text: str) -> list[tuple[str, str, str]]:
    """Split at the lines ``@<name> <value>`` that the shell scripts print between answers."""
    parts = re.split(r"^@(attempt|file|squeue|scontrol|sacct|config|exit|verdict) (\S+)\n", text, flags=re.M)
    return list(zip(parts[1::3], parts[2::3], parts[3::3], strict=True))


def _shell(script: str, *parameters: str, stdin: bytes = b"") -> Command:
    return Command(("sh", "-c", script, "strandloop", *parameters), stdin)


def _slurm(*args: str, stdin: bytes = b"") -> Command:
    return _shell('PATH=$PATH:/opt/slurm/bin; exec timeout 60 "$@"', *args, stdin=stdin)
