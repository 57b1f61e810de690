"""Pipelines: commands that are collected and leave in one write."""

from typing import TYPE_CHECKING, Any

import redis.asyncio.client
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import ConnectionError, ExecAbortError, ResponseError, WatchError

if TYPE_CHECKING:
    from .client import Redis

__all__ = ["Pipeline"]


class Pipeline(redis.asyncio.client.Pipeline):
    """redis-py's pipeline on the client's shared connection.

    A transaction leaves as one piece, so it may share the connection. One that watches keys, or holds
    commands that change a connection or block it, runs on a connection of redis-py's own.
    """

    def __init__(
        self,
        connection_pool: ConnectionPool,
        response_callbacks: Any,
        transaction: bool,
        shard_hint: str | None,
        client: "Redis | None" = None,
    ) -> None:
        """As redis-py's, with the client whose connection is shared; without one it is redis-py's."""
        super().__init__(connection_pool, response_callbacks, transaction, shard_hint)
        self._client = client

    def __init_subclass__(cls, **options: Any) -> None:
        """Give a class that collects commands in its own way redis-py's `execute_command`, which calls it."""
        super().__init_subclass__(**options)
        if "pipeline_execute_command" in vars(cls) and "execute_command" not in vars(cls):
            cls.execute_command = redis.asyncio.client.Pipeline.execute_command  # type: ignore[method-assign]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Collect a command, in one call less than redis-py: half of what a pipeline costs is collecting."""
        if (self.watching or args[0] == "WATCH") and not self.explicit_transaction:
            return self.immediate_execute_command(*args, **options)
        self.command_stack.append((args, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run what was collected; return the list of the results.

        With ``raise_on_error`` the first error is raised; else errors are in the list.
        """
        stack = self.command_stack
        client = self._client
        engine = None if client is None or self.watching or not stack else client.native_engine()
        if engine is None:
            return await super().execute(raise_on_error)
        if self.scripts:
            await self.load_scripts()
            self.scripts = set()
        is_transaction = self.is_transaction or self.explicit_transaction
        replies = engine.shared.execute_several(stack, is_transaction)
        if replies is None:
            return await super().execute(raise_on_error)
        try:
            results = await replies
            if is_transaction:
                results = self._transaction_results(stack, results)
            if raise_on_error:
                self.raise_first_error(stack, results)
            return engine.shared.shape_replies(stack, results)
        finally:
            await self.reset()

    def _transaction_results(self, stack: list[Any], replies: list[Any]) -> list[Any]:
        """Return the results that the replies to MULTI, the commands and EXEC hold."""
        begun, *queued, results = replies
        refused = [(0, begun)] if isinstance(begun, ResponseError) else []
        for number, (reply, command) in enumerate(zip(queued, stack, strict=True)):
            if isinstance(reply, ResponseError):
                self.annotate_exception(reply, number + 1, command[0])
                refused.append((number, reply))
        if isinstance(results, ExecAbortError) and refused:
            raise refused[0][1] from results
        if isinstance(results, Exception):
            raise results
        if results is None:
            raise WatchError("Watched variable changed.")
        for result in results:
            if isinstance(result, ConnectionError):
                # It concerns the connection, not the command: the server is loading, say.
                raise result
        for number, error in refused:
            results.insert(number, error)
        if len(results) != len(stack):
            raise ResponseError("Wrong number of response items from pipeline execution")
        return results
