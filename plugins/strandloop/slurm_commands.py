"""The commands that are run on a cluster's login node; :mod:`strandloop.slurm_answers` reads the answers.

Commands are argument lists; where several must be one round trip, a constant shell script takes them
as positional parameters, so that nothing is ever pasted into shell text.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

#: Files in the directory of an attempt, beside those which the wrapper writes.
SCRIPT, ARRAY, LOG, ELEMENT_LOG = "script.sbatch", "array", "job.log", "job.{index}.log"
SUBMITTED, VERDICT = "submitted.json", "verdict.json"
#: How far one reader has passed the log on, in bytes.
READ_MARK = "read.{reader}"

# A non-interactive SSH session reads no profile, which is where ParallelCluster adds its Slurm.
# Times in UTC, text in English, indices of arrays in full, and no command hangs longer than this while a
# controller is down: with all that a script asks it must stay below the hook's own limit.
_SETTINGS = """PATH=$PATH:/opt/slurm/bin
slurm() { TZ=UTC LC_ALL=C SLURM_TIME_FORMAT=standard SLURM_BITSTR_LEN=0 timeout 20 "$@" 2>&1 </dev/null; }
"""

# An attempt counts from its script on: before that nothing was submitted.
_LOOKUP = (
    _SETTINGS
    + """
for dir in "$1"/*/; do
    [ -f "$dir/script.sbatch" ] || continue
    printf '\\n@attempt %s\\n' "$(basename "$dir")"
    for file in array submitted.json owner; do
        [ -f "$dir/$file" ] && printf '\\n@file %s\\n' "$file" && cat "$dir/$file"
    done
done
text=$(slurm squeue --noheader --name "$2" --format='%F|%T|%r'); rc=$?
printf '\\n@squeue %s\\n%s\\n' "$rc" "$text"
text=$(slurm scontrol show config); rc=$?
printf '\\n@config %s\\n%s\\n' "$rc" "$text"
"""
)

# Slurm is asked before the files are read: of a job that has ended, all of the log is there then. The files
# have a time limit of their own, so that a shared file system that hangs does not silence Slurm.
_POLL = (
    _SETTINGS
    + """
say() { printf '\\n@%s %s\\n%s\\n' "$1" "$rc" "$text"; }
files=$7
text=$(slurm scontrol show job --oneliner "$2"); rc=$?
answered=$rc
text=$(printf '%s\\n' "$text" | sed 's/ NumCPUs=.*//')
say scontrol
case "$answered $6" in
*doubt* | [!0]*)
    text=$(slurm squeue --noheader --states=all --jobs "$2" --format='%F|%K|%j|%T|%r|%D|%N'); rc=$?
    say squeue
    text=$(slurm sacct --noheader --parsable2 --allocations --duplicates --jobs "$2" \\
        --format=JobID,JobName,State,ExitCode,Start,End,NNodes,NodeList); rc=$?
    say sacct ;;
esac
case $6 in
*cluster*)
    text=$(slurm scontrol show config); rc=$?
    say config ;;
esac
timeout -s KILL 20 sh -c "$files" files "$1" "$3" "$4" "$5"
printf '\\n@end %s\\n' "$?"
"""
)

_FILES = """
for file in exit verdict; do
    [ -f "$1/$file.json" ] && printf '\\n@%s 0\\n' "$file" && cat "$1/$file.json"
done
[ -f "$1/began" ] && printf '\\n@began 0\\n' && cat "$1/began"
[ -f "$1/progress.json" ] && printf '\\n@progress 0\\n' && head -c 4096 "$1/progress.json" | tr '\\n@' '  '
# How far a reader has got is kept beside the log, so that it outlives the process that reads.
mark=$1/read.$2
offset=$3
if [ -z "$offset" ]; then
    offset=$(cat "$mark" 2>/dev/null) || offset=0
elif [ "$offset" != 0 ] && [ "$offset" != "$(cat "$mark" 2>/dev/null)" ]; then
    printf '%s' "$offset" > "$mark.tmp" && mv -f "$mark.tmp" "$mark"
fi
if [ -f "$1/job.log" ]; then
    # Somebody has cut it: what stands there now was not read yet.
    [ "$(wc -c < "$1/job.log")" -ge "$offset" ] || offset=0
    printf '\\n@log %s\\n' "$offset"
    tail -c "+$((offset + 1))" "$1/job.log" | head -c "$4"
else
    printf '\\n@log %s\\n' "$offset"
fi
"""

# Slurm forgets an element long before its array ends, so the verdict of one that left no exit file is kept.
_ELEMENT_FILES = """
verdicts=$(cat)
[ -z "$verdicts" ] || printf '%s\\n' "$verdicts" >> "$1/verdict.$2.jsonl"
printf '\\n@exit 0\\n'
find "$1" -maxdepth 1 -name 'exit.[0-9]*.json' -exec cat {} +
printf '\\n@began 0\\n'
find "$1" -maxdepth 1 -name 'began.[0-9]*' -exec cat {} +
printf '\\n@verdict 0\\n'
find "$1" -maxdepth 1 -name 'verdict*.json*' ! -name '*.tmp' -exec cat {} +
printf '\\n@log 0\\n'
"""

_WRITE = """
mkdir -p "$(dirname "$1")" && cat > "$1.tmp" && sync "$1.tmp" && mv -f "$1.tmp" "$1" || exit 1
"""

_LOG_ENDS = """
cd "$2" || exit 1
bytes=$3 lines=$4
shift 4
for log in "$@"; do
    [ -f "$log" ] || continue
    [ "$#" -eq 1 ] || printf '%s:\\n' "$log"
    tail -c "$bytes" "$log" | tail -n "$lines"
    [ "$#" -eq 1 ] || echo
done
"""

#: Bytes of log that a failure shows, and lines.
LOG_END, LAST_LINES = 4096, 20


@dataclass(frozen=True)
class Command:
    """One command for the login node: arguments, and what it reads from its standard input."""

    args: tuple[str, ...]
    stdin: bytes = b""


def look_up(identity_dir: str, *, name: str) -> Command:
    """List the attempts under one job identity, and the jobs of that name that are in the queue."""
    return _shell(_LOOKUP, identity_dir, name)


def poll(
    job_dir: str,
    *,
    job_id: str,
    reader: str,
    offset: int | None,
    limit: int,
    cluster: bool = False,
    doubt: bool = False,
) -> Command:
    """Gather all evidence about one job, and the next ``limit`` bytes of its log.

    :param reader: names who reads the log; each reader has a place of its own in it.
    :param offset: bytes of the log that this reader has passed on; ``None`` to go on where it stopped.
    :param cluster: ask for the cluster's name as well.
    :param doubt: ask squeue and accounting even where the controller answers.
    """
    place = "" if offset is None else str(offset)
    asked = _asked(cluster=cluster, doubt=doubt)
    return _shell(_POLL, job_dir, job_id, reader, place, str(limit), asked, _FILES)


def poll_array(
    job_dir: str, *, job_id: str, reader: str, verdicts: str = "", cluster: bool = False, doubt: bool = False
) -> Command:
    """Gather all evidence about all elements of a job array.

    :param verdicts: lines to keep beside the job, of elements whose end nothing else will tell for long.
    """
    asked = _asked(cluster=cluster, doubt=doubt)
    return _shell(_POLL, job_dir, job_id, reader, "0", "0", asked, _ELEMENT_FILES, stdin=verdicts.encode())


def write_file(path: str, content: bytes) -> Command:
    """Write a file so that it is there whole or not at all, with the directories above it."""
    return _shell(_WRITE, path, stdin=content)


def conclude(job_dir: str, *, verdict: str, logs: Sequence[str] = (LOG,)) -> Command:
    """Write down how a job ended, before Slurm forgets it, and print the ends of its logs."""
    path = posixpath.join(job_dir, VERDICT)
    lines = LAST_LINES // max(1, len(logs))
    return _shell(_WRITE + _LOG_ENDS, path, job_dir, str(LOG_END), str(lines), *logs, stdin=verdict.encode())


def submit(
    batch_script: str, *, job_dir: str, name: str, options: Sequence[str], array: str | None = None
) -> Command:
    """Submit a batch script, held, so that the queue can be looked at before anything runs.

    :param array: which elements, as ``sbatch --array`` takes them; ``None`` for a job that is no array.
    """
    log = LOG if array is None else ELEMENT_LOG.format(index="%a")
    own = [
        "--parsable",
        "--hold",
        f"--job-name={name}",
        f"--chdir={job_dir}",
        f"--output={posixpath.join(job_dir, log)}",
        "--open-mode=append",
    ]
    if array is not None:
        own.append(f"--array={array}")
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


def queued(*names: str) -> Command:
    """List the jobs of these names that are waiting, running or completing."""
    return _slurm("squeue", "--noheader", "--name", ",".join(names), "--format=%F|%T|%r")


def all_jobs() -> Command:
    """List each job with its state, user and comment."""
    return _slurm("squeue", "--noheader", "--format=%i|%T|%u|%k")


def nodes() -> Command:
    """List each node with its state."""
    return _slurm("sinfo", "--noheader", "--Node", "--format=%N|%T")


def controller() -> Command:
    """Show the controller's configuration."""
    return _slurm("scontrol", "show", "config")


def _asked(*, cluster: bool, doubt: bool) -> str:
    return " ".join(word for word, wanted in {"cluster": cluster, "doubt": doubt}.items() if wanted)


def _shell(script: str, *parameters: str, stdin: bytes = b"") -> Command:
    return Command(("sh", "-c", script, "strandloop", *parameters), stdin)


def _slurm(*args: str, stdin: bytes = b"") -> Command:
    return _shell('PATH=$PATH:/opt/slurm/bin; exec timeout 60 "$@"', *args, stdin=stdin)
