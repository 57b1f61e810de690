"""The command line: run an unmodified asyncio program with aioxide as its event loop; compare loops; workers.

A program sees what `python SCRIPT` or `python -m MODULE` would show it: `sys.argv`, `sys.path[0]`,
a fresh `__main__`, its own exit code.
"""

from __future__ import annotations

import argparse
import builtins
import io
import os
import runpy
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from ._everywhere import use_everywhere
from ._rust import native_task_factory
from .loop import EventLoop

DRIVERS = ("auto", "uring", "epoll")


def main(arguments: list[str] | None = None) -> None:
    """Run the program that the command line names, or the comparison."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["bench"]:
        from .bench.command import main as compare

        raise SystemExit(compare(given[1:]))
    if given[:1] == ["worker"]:
        from .workers.command import main as work

        raise SystemExit(work(given[1:]))
    parser = _parser()
    ours, module, target = _split(given)
    options = parser.parse_args(ours)
    if options.version:
        from . import __version__

        print(f"aioxide {__version__}")
        return
    if not target:
        parser.error("a SCRIPT or -m MODULE is needed")
    use_everywhere(_loop_factory(options.driver, options.debug, options.native_tasks))
    if module:
        _run_module(target)
    else:
        _run_script(target)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aioxide",
        usage="python -m aioxide [--driver auto|uring|epoll] [--native-tasks] [--debug] (SCRIPT | -m MODULE) "
        "[ARGS...]\n"
        "       python -m aioxide bench [--help]\n"
        "       python -m aioxide worker [--help]",
        description="Run an asyncio program with aioxide as its event loop. The program is not changed: "
        "every asyncio.run(), asyncio.Runner() and asyncio.new_event_loop() in it makes an aioxide loop.",
        epilog="Options for aioxide come before SCRIPT or -m; everything after it belongs to the program. "
        "A loop that the program chooses itself (loop_factory=..., a policy) is left alone, and Python "
        "processes that it starts use asyncio unless they are started the same way. `bench` compares event "
        "loops, `worker` runs a function for the events of a Redis stream; programs of these names are "
        "./bench and ./worker.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--driver",
        choices=DRIVERS,
        help="how to wait for the kernel: io_uring, epoll, or the better one that works here "
        "(default: the environment variable AIOXIDE_DRIVER, else auto)",
    )
    parser.add_argument(
        "--native-tasks",
        action="store_true",
        help="make aioxide's own tasks and futures: faster, and the same in all but their type",
    )
    parser.add_argument("--debug", action="store_true", help="switch asyncio's debug mode on in every loop")
    parser.add_argument("--version", action="store_true", help="print the version of aioxide and leave")
    return parser


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    """Separate our options from the program: (ours, is it a module, [program, *its arguments])."""
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        if argument.startswith("-m"):
            attached = [argument[2:]] if len(argument) > 2 else []
            return arguments[:position], True, attached + arguments[position + 1 :]
        if argument == "--":
            return arguments[:position], False, arguments[position + 1 :]
        if not argument.startswith("-") or argument == "-":
            return arguments[:position], False, arguments[position:]
        position += 2 if argument == "--driver" else 1
    return arguments, False, []


def _loop_factory(driver: str | None, debug: bool, native_tasks: bool) -> type[EventLoop] | _Factory:
    return _Factory(driver, debug, native_tasks) if driver or debug or native_tasks else EventLoop


class _Factory:
    """Make loops as the command line says."""

    def __init__(self, driver: str | None, debug: bool, native_tasks: bool) -> None:
        self._driver = driver
        self._debug = debug
        self._native_tasks = native_tasks

    def __call__(self) -> EventLoop:
        loop = EventLoop(self._driver)
        if self._debug:
            loop.set_debug(True)
        if self._native_tasks:
            loop.set_task_factory(native_task_factory)
        return loop


def _fresh_main() -> ModuleType:
    main_module = ModuleType("__main__")
    main_module.__dict__["__builtins__"] = builtins
    if sys.version_info < (3, 14):
        main_module.__annotations__ = {}
    sys.modules["__main__"] = main_module
    return main_module


def _run_module(target: list[str]) -> None:
    # `python -m aioxide` has already put the current directory in front of sys.path.
    sys.argv[:] = target
    _fresh_main()
    _run_main(target[0], True)


def _run_script(target: list[str]) -> None:
    sys.argv[:] = target
    path = os.path.abspath(target[0])
    if os.path.isdir(path) or path.endswith((".zip", ".pyz")):
        # A directory or an archive with a `__main__.py` is itself the place to import from.
        _set_first_path(path)
        _fresh_main()
        _run_main("__main__", False)
        return
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        _fail(f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}")
    _set_first_path(os.path.dirname(os.path.realpath(path)))
    namespace = _fresh_main().__dict__
    namespace.update(
        __file__=path,
        __cached__=None,
        __loader__=SourceFileLoader("__main__", path),
    )
    try:
        exec(compile(source, path, "exec", dont_inherit=True), namespace)
    except Exception as error:
        _die_of(error)


def _run_main(module: str, alter_argv: bool) -> None:
    try:
        # What the interpreter itself runs for -m; the public `run_module` puts `__main__` back
        # afterwards, under the feet of exit handlers and threads that are still using it.
        runpy._run_module_as_main(module, alter_argv)  # type: ignore[attr-defined]
    except Exception as error:
        _die_of(error)


def _die_of(error: Exception) -> NoReturn:
    """End as the interpreter does for an uncaught exception, with the program's own frames only."""
    traceback = error.__traceback__
    error.__traceback__ = traceback and traceback.tb_next
    sys.excepthook(type(error), error, error.__traceback__)
    raise SystemExit(1)


def _set_first_path(path: str) -> None:
    if not sys.flags.safe_path:
        sys.path[0] = path


def _fail(message: str) -> NoReturn:
    print(f"{Path(sys.executable).name}: {message}", file=sys.stderr)
    # What the interpreter answers for a program it cannot read.
    raise SystemExit(2)
