"""One process of `python -m aioxide worker`: imports the handler and runs a StreamWorker."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from .. import native_task_factory
from ..loop import EventLoop
from .job import MISTAKE, STOPPED, Job, take_job


class MistakeError(Exception):
    """What a person has to mend; the message says it in one line."""


def main() -> int:
    """Work as the environment says; return the exit code."""
    job = take_job()
    os.set_inheritable(job.lifeline, False)
    name = job.options["consumer"]
    try:
        target = handler_of(job.handler)
        logging.basicConfig(
            level=job.log_level.upper(), format=f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s"
        )
        with asyncio.Runner(loop_factory=lambda: new_loop(job)) as runner:
            runner.run(work(job, target))
    except MistakeError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return MISTAKE
    return STOPPED


def new_loop(job: Job) -> asyncio.AbstractEventLoop:
    """Make the loop that the job asks for."""
    loop = EventLoop(job.driver)
    if job.native_tasks:
        loop.set_task_factory(native_task_factory)
    return loop


def handler_of(path: str) -> Callable[..., Any]:
    """Import what `MODULE:NAME` names."""
    module_name, _, names = path.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that is there and misses another one has a traceback to show.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise MistakeError(f"there is no module {module_name!r} in {os.getcwd()} or on sys.path") from None
    for name in names.split("."):
        try:
            target = getattr(target, name)
        except AttributeError:
            raise MistakeError(f"module {module_name!r} has no {names!r}") from None
    if not callable(target):
        raise MistakeError(f"{path} is no function: {target!r}")
    return target  # type: ignore[no-any-return]


async def work(job: Job, target: Callable[..., Any]) -> None:
    """Run the worker for as long as the supervisor lives and wants it."""
    try:
        from ..redis.worker import StreamWorker
        from ..redis.worker.client import connect
        from ..redis.worker.dispatcher import NotAsynchronousError
        from ..redis.worker.stream_worker import REFUSALS
    except ImportError as error:
        raise MistakeError(str(error)) from error
    loop = asyncio.get_running_loop()
    try:
        client = connect(job.url)
    except ValueError as error:
        raise MistakeError(f"no address of a server: {error}") from error
    async with client, provided(job, target) as handler:
        try:
            worker = StreamWorker(client, handler=handler, **job.options)
        except ValueError as error:
            raise MistakeError(str(error)) from error

        def stop() -> None:
            loop.remove_reader(job.lifeline)
            worker.stop()

        loop.add_reader(job.lifeline, stop)
        try:
            await worker.run()
        except REFUSALS as error:
            raise MistakeError(f"the server refuses: {error}") from error
        except NotAsynchronousError as error:
            raise MistakeError(str(error)) from error
        finally:
            loop.remove_reader(job.lifeline)


@contextlib.asynccontextmanager
async def provided(job: Job, target: Callable[..., Any]) -> AsyncIterator[Callable[..., Any]]:
    """Provide the handler; a factory makes an asynchronous context manager that does."""
    if not job.is_factory:
        if inspect.isasyncgenfunction(inspect.unwrap(target)):
            raise MistakeError(f"{job.handler} is no coroutine function; is it meant for --factory?")
        yield target
        return
    made = target()
    if not isinstance(made, contextlib.AbstractAsyncContextManager):
        raise MistakeError(f"{job.handler}() is no asynchronous context manager: {made!r}")
    async with made as handler:
        yield handler


if __name__ == "__main__":
    sys.exit(main())
