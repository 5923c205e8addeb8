"""The batch script that is submitted: the user's script, run under a wrapper that leaves evidence."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from strandloop.errors import InvalidJob

#: Options of sbatch that belong to the operator; found in a script they are left out.
_OURS = {
    "-J": "--job-name",
    "-a": "--array",
    "-o": "--output",
    "-e": "--error",
    "-D": "--chdir",
    "-H": "--hold",
    "--open-mode": "--open-mode",
    "--parsable": "--parsable",
}
_WITHOUT_VALUE = {"--hold", "--parsable"}
#: Options under which a submission cannot be followed: it does not return, is none, or goes elsewhere.
_REFUSED = {
    "-W": "--wait",
    "--wrap": "--wrap",
    "--test-only": "--test-only",
    "-M": "--clusters",
    "hetjob": "hetjob",
    "packjob": "packjob",
}

#: Exit status of a second job that found the attempt's directory taken.
DUPLICATE = 98

_BODY = r"""
restart=${SLURM_RESTART_COUNT:-0}
exit_file=$STRANDLOOP_JOB_DIR/exit${index:+.$index}.json

# The first job to get here owns this directory; hard links are atomic on NFS and Lustre too. The elements
# of an array are one job.
owner_file=$STRANDLOOP_JOB_DIR/owner
if [ ! -e "$owner_file" ]; then
    printf '%s\n' "$job" > "$owner_file.$SLURM_JOB_ID"
    ln "$owner_file.$SLURM_JOB_ID" "$owner_file" 2>/dev/null
    rm -f "$owner_file.$SLURM_JOB_ID"
fi
owner=$(cat "$owner_file")
if [ "$owner" != "$job" ]; then
    echo "strandloop: job ${owner:-(unreadable)} already owns $STRANDLOOP_JOB_DIR; this one does nothing" >&2
    exit @DUPLICATE@
fi

# Slurm calls a job completed whose script it could not start. This one was started.
printf '%s %s %s\n' "$job" "${index:--}" "$restart" > "$STRANDLOOP_JOB_DIR/began${index:+.$index}"

# Slurm may start a job again whose script has succeeded: its node failed before it could say so. A script
# that ended with 0 after a signal has only saved its state.
if grep -q '"exit_code": 0, "signal": null, "told": "", "oom_kills": 0,' "$exit_file" 2>/dev/null; then
    echo "strandloop: job $SLURM_JOB_ID has succeeded before it was started again; nothing is left to do" >&2
    exit 0
fi
# Another job that Slurm started again puts the report of its earlier run aside.
[ -e "$exit_file" ] && mv -f "$exit_file" "$STRANDLOOP_JOB_DIR/exit.before-restart-$restart${index:+.$index}.json"

# Processes of the job that the kernel killed for their memory, which a script may fail to notice. Without
# control groups nobody but Slurm can tell.
oom_kills() {
    local controllers path file name count
    while IFS=: read -r _ controllers path; do
        case $controllers in
            memory) file=/sys/fs/cgroup/memory$path/memory.oom_control ;;
            "") file=/sys/fs/cgroup$path/memory.events ;;
            *) continue ;;
        esac
        [[ $path == */job_$SLURM_JOB_ID/* && -r $file ]] || continue
        while read -r name count; do
            [ "$name" = oom_kill ] && echo "$count" && return
        done < "$file"
    done < /proc/self/cgroup
    echo 0
}

started_at=$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)
(environment; exec "$BASH" "$STRANDLOOP_JOB_DIR/script.sbatch" "${script_args[@]}") &
child=$!

# Slurm signals the batch shell alone for --signal=B:..., and a shell must not die before its child.
told=
forward() {
    told=$1
    interrupted=yes
    kill -s "$1" "$child" 2>/dev/null
}
for name in HUP INT QUIT TERM USR1 USR2; do
    trap "forward $name" "$name"
done
while :; do
    interrupted=
    wait "$child"
    status=$?
    [ -z "$interrupted" ] && break
done

# The log first: who sees the report has all of the log.
sync /dev/stdout 2>/dev/null
# Temporary name, fsync, rename: a report is there whole or not at all.
report=$exit_file.$SLURM_JOB_ID.tmp
signal=null
[ "$status" -gt 128 ] && [ "$status" -le 192 ] && signal=$((status - 128))
if {
    printf '{"job_id": "%s", "index": %s, ' "$job" "${index:-null}"
    printf '"exit_code": %d, "signal": %s, ' "$status" "$signal"
    printf '"told": "%s", "oom_kills": %d, "started_at": "%s", ' "$told" "$(oom_kills)" "$started_at"
    printf '"ended_at": "%s", "hosts": "%s", ' "$(date -u +%Y-%m-%dT%H:%M:%S.%3NZ)" "$SLURM_JOB_NODELIST"
    printf '"nodes": %d, "restart_count": %d}\n' "${SLURM_JOB_NUM_NODES:-1}" "$restart"
} > "$report"; then
    sync "$report" && mv -f "$report" "$exit_file" && sync "$STRANDLOOP_JOB_DIR"
else
    echo "strandloop: could not write $exit_file; the scheduler alone knows how this job ended" >&2
fi
exit "$status"
""".replace("@DUPLICATE@", str(DUPLICATE))


def batch_script(
    script: str,
    *,
    job_dir: str,
    script_args: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    array: bool = False,
) -> str:
    """Return the text for ``sbatch``'s standard input.

    Its head repeats the ``#SBATCH`` lines of ``script``, so that they count as written; options on
    sbatch's command line override them. Its body runs ``script.sbatch`` (a copy of ``script`` in
    ``job_dir``) with bash, forwards signals to it, and reports the end in ``job_dir/exit.json``, or of an
    array's element in ``job_dir/exit.<index>.json``.

    :param environment: exported by the script's shell; not by ``--export``, which would cut values at commas.
    :param array: whether a job array is submitted, of which each element runs this script.
    :raises InvalidJob: for an option under which the job cannot be followed, or a bad variable name.
    """
    lines = ["#!/bin/bash"]
    for options in _directives(script):
        if kept := list(_without_ours(options)):
            lines.append(f"#SBATCH {shlex.join(kept)}")
    exports = []
    for name, value in (environment or {}).items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise InvalidJob(f"environment: {name!r} is not a name that a shell can export")
        exports.append(f"    export {name}={shlex.quote(str(value))}")
    # A function, so that the script's PATH or LD_PRELOAD does not reach the wrapper.
    lines += ["environment() {", *exports, "    :", "}"]
    lines.append(f"export STRANDLOOP_JOB_DIR={shlex.quote(job_dir)}")
    lines.append(f"script_args=({shlex.join(script_args)})")
    lines.append(
        "job=$SLURM_ARRAY_JOB_ID index=$SLURM_ARRAY_TASK_ID" if array else "job=$SLURM_JOB_ID index="
    )
    return "\n".join(lines) + "\n" + _BODY.lstrip("\n")


def array_of(script: str) -> str | None:
    """Return the array that the script's own ``#SBATCH`` lines ask for; of several the last, as for sbatch."""
    found = None
    for options in _directives(script):
        rest = iter(options)
        for option in rest:
            if _name(option) == "--array":
                found = _value(option) or next(rest, "")
    return found


def _directives(script: str) -> Iterator[list[str]]:
    """Yield the options of each ``#SBATCH`` line, as sbatch does only up to the first command."""
    for line in script.splitlines():
        if line.strip() and not line.startswith("#"):
            return
        if line.startswith("#SBATCH"):
            try:
                yield shlex.split(line.removeprefix("#SBATCH"), comments=True)
            except ValueError as error:
                raise InvalidJob(f"cannot read {line!r} of the batch script: {error}") from error


def _without_ours(options: list[str]) -> Iterator[str]:
    """Leave out the options that the operator sets itself, with their values."""
    rest = iter(options)
    for option in rest:
        name = _name(option)
        if name in _REFUSED.values():
            raise InvalidJob(f"the batch script asks for {option!r}: {name} is not supported here")
        if name not in _OURS.values():
            yield option
        elif name not in _WITHOUT_VALUE and not _value(option):
            next(rest, None)


def _name(option: str) -> str:
    """Return the long name of an option of ours, which sbatch lets people abbreviate; else what is written."""
    known = _OURS | _REFUSED
    if not option.startswith("--"):
        return known.get(option, known.get(option[:2], option))
    written = option.partition("=")[0]
    names = {name for name in known.values() if name.startswith(written)}
    if written in names or len(names) != 1 or len(written) < 4:
        return written
    return names.pop()


def _value(option: str) -> str:
    """Return the value that is written in one word with its option: ``--array=1-9``, ``-a1-9``."""
    return option.partition("=")[2] if option.startswith("--") else option[2:]
