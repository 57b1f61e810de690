"""The command line of `python -m aioxide worker`."""

from __future__ import annotations

import argparse
import os
import socket

from .. import run
from .job import Job
from .slots import locked_slots
from .supervisor import Plan, Supervisor

DESCRIPTION = """\
Run an async function for every event of a Redis stream, in several processes.

    # shop.py
    async def charge(event):
        print(event.id, event.fields)

    $ python -m aioxide worker shop:charge --stream orders --group billing --processes 4

Every event is delivered to one process of the group, and again to another if that one dies. Start the same
command on more machines to share the work. SIGTERM and Ctrl-C end it when running calls have ended; a second
one cancels those. A process that crashes is started again.
"""
EPILOG = """\
exit codes: 0 stopped by SIGTERM, 130 by Ctrl-C, 1 some process had to be killed, 2 a mistake: a handler that
cannot be imported, a wrong option, a server that refuses.
"""


def main(arguments: list[str]) -> int:
    """Run what the command line asks for; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    module, _, name = options.handler.partition(":")
    if not module or not name:
        parser.error(f"the handler is MODULE:FUNCTION, not {options.handler!r}")
    job = Job(
        handler=options.handler,
        is_factory=options.factory,
        url=options.url,
        options={
            "streams": options.stream,
            "group": options.group,
            "concurrency": options.concurrency,
            "batch": options.batch,
            "timeout": options.timeout,
            "max_deliveries": options.max_deliveries or None,
            "retry_delay": options.retry_delay,
            "dead_letter": None if options.drop else options.dead_letter,
            "dead_letter_limit": options.dead_letter_limit,
            "claim_idle": options.claim_idle,
            "start": options.start,
            "delete": options.delete,
            "decode": not options.bytes,
            "grace": options.grace,
        },
        driver=options.driver,
        native_tasks=options.native_tasks,
        log_level=options.log_level,
        lifeline=-1,
    )
    plan = Plan(job, options.name, options.restart_delay, max(options.restart_delay, 30.0))
    purpose = repr((options.url, sorted(options.stream), options.group, options.name))
    with locked_slots(purpose, options.processes) as slots:
        return run(Supervisor(plan, slots).run())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aioxide worker",
        usage="python -m aioxide worker MODULE:FUNCTION --stream S --group G [--processes N] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("handler", metavar="MODULE:FUNCTION", help="the async function, called with an Event")
    _add_where(parser.add_argument_group("where"))
    _add_how(parser.add_argument_group("how"))
    _add_failures(parser.add_argument_group("when something fails"))
    _add_processes(parser.add_argument_group("processes"))
    return parser


def _add_where(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--stream", action="append", required=True, metavar="S", help="a stream; several times for several"
    )
    group.add_argument(
        "--group", required=True, metavar="G", help="the consumer group, created if it is missing"
    )
    group.add_argument(
        "--url",
        default=os.environ.get("REDIS_URL", "redis://localhost:6379"),
        help="the server (default: $REDIS_URL, else redis://localhost:6379)",
    )
    group.add_argument(
        "--start",
        default="0",
        metavar="ID",
        help="where a new group begins: 0 the beginning of the stream (default), $ its end, or an id",
    )


def _add_how(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--concurrency", type=_positive, default=10, metavar="N", help="calls at once, per process (10)"
    )
    group.add_argument("--batch", type=_positive, metavar="N", help="call with lists of up to N events")
    group.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="cancel calls that take longer; they failed"
    )
    group.add_argument("--bytes", action="store_true", help="fields are bytes, not text")
    group.add_argument("--delete", action="store_true", help="delete events once they are acknowledged")
    group.add_argument(
        "--factory",
        action="store_true",
        help="FUNCTION makes an async context manager that provides the handler: for pools and the like",
    )


def _add_failures(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-deliveries", type=int, default=5, metavar="N", help="give an event up after N (5); 0 never"
    )
    group.add_argument(
        "--retry-delay",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="before a failed event is delivered again, doubled each time (1)",
    )
    group.add_argument(
        "--dead-letter",
        default="{stream}:dead",
        metavar="S",
        help="the stream for events that are given up (default: the stream's name and :dead)",
    )
    group.add_argument(
        "--dead-letter-limit", type=_positive, metavar="N", help="keep about N dead letters (all)"
    )
    group.add_argument("--drop", action="store_true", help="drop events that are given up")
    group.add_argument(
        "--claim-idle",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="without a sign of life, until others take over what a process had (30)",
    )


def _add_processes(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--processes", type=_positive, default=1, metavar="N", help="how many (1)")
    group.add_argument(
        "--name",
        default=socket.gethostname(),
        help="consumers are called NAME-0, NAME-1, ...; keep it the same, and different on every machine "
        "(default: the host's name)",
    )
    group.add_argument(
        "--grace",
        type=_seconds,
        default=25.0,
        metavar="SECONDS",
        help="for running calls to end when stopping (25)",
    )
    group.add_argument(
        "--restart-delay",
        type=_seconds,
        default=0.5,
        metavar="SECONDS",
        help="before a crashed process is started again, doubled each time up to 30 s (0.5)",
    )
    group.add_argument("--driver", choices=("auto", "uring", "epoll"), help="as in python -m aioxide")
    group.add_argument("--native-tasks", action="store_true", help="as in python -m aioxide")
    group.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="what a process logs to standard error, unless the handler's module sets logging up (info)",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return seconds
