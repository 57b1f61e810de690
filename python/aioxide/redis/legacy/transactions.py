"""`multi_exec()` and `pipeline()`: commands that are collected and then sent together.

Every command returns a future, which has its result when `execute` is done.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import ExecAbortError, WatchError

from .commands import Commands
from .connection import Connection, Encoding, Unset, words_of
from .errors import MultiExecError, PipelineError, WatchVariableError
from .replies import Convert, decoded


class Collected(Commands):
    """Commands that wait for `execute`."""

    error_type: type[PipelineError] = PipelineError
    kind = "Pipeline"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._commands: list[tuple[tuple[Any, ...], str | None, Convert | None, asyncio.Future[Any]]] = []
        self._is_done = False

    def send(
        self, words: tuple[Any, ...], encoding: Encoding, convert: Convert | None
    ) -> asyncio.Future[Any]:
        """Collect a command; return a future of its result."""
        if self._is_done:
            raise RuntimeError("it has been executed; make another one")
        command, *arguments = words_of(words)
        name = command.decode() if isinstance(command, bytes) else command
        codec = self._connection.encoding if isinstance(encoding, Unset) else encoding
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._commands.append(((name.upper(), *arguments), codec, convert, future))
        return future

    async def execute(self, *, return_exceptions: bool = False) -> list[Any]:
        """Send everything; return the results, in which errors are only with `return_exceptions`."""
        self._is_done = True
        if not self._commands:
            return []
        try:
            replies = await self._replies()
        except (Exception, asyncio.CancelledError) as error:
            for *_, future in self._commands:
                _fail(future, error)
            raise
        results = []
        for reply, (_, encoding, convert, future) in zip(replies, self._commands, strict=True):
            results.append(_settle(reply, encoding, convert, future))
        errors = [result for result in results if isinstance(result, Exception)]
        if errors and not return_exceptions:
            raise self.error_type(self.kind, errors)
        return results

    async def _replies(self) -> list[Any]:
        pipeline = self._connection.client.pipeline(transaction=False)
        for words, *_ in self._commands:
            pipeline.execute_command(*words)
        return await pipeline.execute(raise_on_error=False)


class Pipeline(Collected):
    """Commands that are sent together, between which others may come."""


class MultiExec(Collected):
    """Commands that are done together, or not at all when a key that is watched has changed."""

    error_type = MultiExecError
    kind = "MULTI/EXEC"

    def __init__(self, connection: Connection, watching: Any = None) -> None:
        super().__init__(connection)
        self._watching = watching

    async def _replies(self) -> list[Any]:
        pipeline: Any = self._watching
        if pipeline is None:
            pipeline = self._connection.client.pipeline(transaction=True)
        else:
            pipeline.multi()
        for words, *_ in self._commands:
            pipeline.execute_command(*words)
        try:
            return await pipeline.execute(raise_on_error=False)
        except WatchError as error:
            raise WatchVariableError("WATCH", [error]) from error
        except ExecAbortError as error:
            raise MultiExecError(self.kind, [error]) from error


def _settle(reply: Any, encoding: str | None, convert: Convert | None, future: asyncio.Future[Any]) -> Any:
    """Give a result to the future of its command, and return it."""
    if not isinstance(reply, Exception):
        try:
            result = decoded(reply, encoding)
            result = result if convert is None else convert(result)
        except Exception as error:
            reply = error
        else:
            if not future.done():
                future.set_result(result)
            return result
    _fail(future, reply)
    return reply


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        if isinstance(error, asyncio.CancelledError):
            future.cancel()
            return
        future.set_exception(error)
        # It has been raised, or returned, by `execute` too.
        future.exception()


__all__ = ["MultiExec", "Pipeline"]
