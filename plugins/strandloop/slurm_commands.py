"""The commands that are run on a cluster's login node; :mod:`strandloop.slurm_answers` reads the answers.

Commands are argument lists; where several must be one round trip, a constant shell script takes them
as positional parameters, so that nothing is ever pasted into shell text.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

#: Files in the directory of an attempt, beside ``exit.json`` and ``owner`` which the wrapper writes.
SCRIPT, LOG, SUBMITTED, VERDICT = "script.sbatch", "job.log", "submitted.json", "verdict.json"

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


def nodes() -> Command:
    """List each node with its state."""
    return _slurm("sinfo", "--noheader", "--Node", "--format=%N|%T")


def controller() -> Command:
    """Show the controller's configuration."""
    return _slurm("scontrol", "show", "config")


def _shell(script: str, *parameters: str, stdin: bytes = b"") -> Command:
    return Command(("sh", "-c", script, "strandloop", *parameters), stdin)


def _slurm(*args: str, stdin: bytes = b"") -> Command:
    return _shell('PATH=$PATH:/opt/slurm/bin; exec timeout 60 "$@"', *args, stdin=stdin)
