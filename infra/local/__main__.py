"""``python -m infra.local``: bring the local stack up, look at it, run a day on it, take it down."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infra.local.environment import as_shell, read_environment
from infra.local.layout import DEFAULT_STATE, Layout, StackError
from infra.local.ports import DEFAULT_PORTS, variable
from infra.local.stack import DEFAULT_PARTS, EXTRA_PARTS, Stack


def main(arguments: list[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options) or 0)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1


def _up(options: argparse.Namespace) -> None:
    stack = Stack(options.state, port_options=options.port, free_ports=options.free_ports)
    stack.up((*DEFAULT_PARTS, *options.extra))
    print(f"environment in {stack.layout.environment_file}")


def _status(options: argparse.Namespace) -> int:
    parts = Stack(options.state).status()
    for part in parts:
        print(
            f"{part.name:<10} {'up  ' if part.problem is None else 'DOWN'}  {part.problem or part.description}"
        )
    return 1 if any(part.problem for part in parts) else 0


def _down(options: argparse.Namespace) -> None:
    ended = Stack(options.state).down()
    print(f"ended {ended} processes" if ended else "nothing was running")


def _environment(options: argparse.Namespace) -> None:
    print(as_shell(read_environment(Layout.of(options.state))))


def _run(options: argparse.Namespace) -> int:
    from infra.local import daily_run

    layout = Layout.of(options.state)
    return daily_run.run(
        read_environment(layout),
        samples=layout.samples,
        logs=layout.logs / "run",
        report=layout.state / "report.html",
    )


def _airflow(options: argparse.Namespace) -> int:
    from infra.local import daily_run

    stack = Stack(options.state)
    if taken := stack.ports.taken(["airflow"]):
        raise StackError("\n".join(taken))
    return daily_run.airflow(read_environment(stack.layout))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.local", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument(
            "--state",
            type=Path,
            default=DEFAULT_STATE,
            help="where the stack keeps its files (default: .local)",
        )
        sub.set_defaults(command=function)
        return sub

    up = command("up", _up, "start what is not running and wait until all of it answers")
    up.add_argument(
        "--port",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help=f"another port; names: {', '.join(DEFAULT_PORTS)}; also as {variable('s3')}=NUMBER and so on",
    )
    up.add_argument("--free-ports", action="store_true", help="take free ports instead of the usual ones")
    up.add_argument(
        "--with", dest="extra", action="append", default=[], choices=EXTRA_PARTS, help="start this as well"
    )
    command("status", _status, "ask every part; exit status 1 if one is down")
    command("down", _down, "end everything that `up` started; what was stored stays")
    command("environment", _environment, "print `export` lines for a shell's eval")
    for name, function, text in (
        ("run", _run, "run a day's batch on the stack"),
        ("airflow", _airflow, "run Airflow on the stack"),
    ):
        command(name, function, text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
