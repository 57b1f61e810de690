"""Cluster: redis-py's asyncio cluster client whose nodes send over native connections.

Slots, policies, failover and what a command means in a cluster are redis-py's, by inheritance. Ours is how a
node takes commands, the way of an ordinary command with one key, and what becomes of a command that was
redirected or lost.

All ordinary commands for a node share one connection, so nothing here may close it for the sake of one of
them: where redis-py closes every connection to read the slots anew, we only read them anew.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

import redis.asyncio.cluster
from redis.asyncio.cluster import NodesManager, PipelineCommand
from redis.cluster import READ_COMMANDS  # type: ignore[attr-defined]
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    ConnectionError,
    MaxConnectionsError,
    MovedError,
    RedisClusterException,
    SlotNotCoveredError,
    TimeoutError,
    TryAgainError,
)
from redis.utils import str_if_bytes

from .._rust import EventLoop, _redis_route
from .engine import Engine
from .options import NotNative, connection_settings

__all__ = ["ClusterNode", "ClusterPipeline", "RedisCluster"]

_LOST = (ConnectionError, TimeoutError)
_UNSETTLED = (ClusterDownError, SlotNotCoveredError)
_SPLIT = ("MGET", "MSET")

_FORGOTTEN_AFTER = 5.0
"""After so many seconds without a failure the back-off begins anew."""

_ONE_KEY = frozenset(
    """
    APPEND BITCOUNT BITFIELD BITFIELD_RO BITPOS DECR DECRBY DUMP EXPIRE EXPIREAT EXPIRETIME GEOADD GEODIST
    GEOHASH GEOPOS GEOSEARCH GET GETBIT GETDEL GETEX GETRANGE GETSET HDEL HEXISTS HGET HGETALL HINCRBY
    HINCRBYFLOAT HKEYS HLEN HMGET HMSET HRANDFIELD HSCAN HSET HSETNX HSTRLEN HVALS INCR INCRBY INCRBYFLOAT
    LINDEX LINSERT LLEN LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM PERSIST PEXPIRE PEXPIREAT PEXPIRETIME
    PSETEX PTTL RESTORE RPOP RPUSH RPUSHX SADD SCARD SET SETBIT SETEX SETNX SETRANGE SISMEMBER SMEMBERS
    SMISMEMBER SPOP SRANDMEMBER SREM SSCAN STRLEN SUBSTR TTL TYPE XACK XADD XAUTOCLAIM XCLAIM XDEL XLEN
    XPENDING XRANGE XREVRANGE XTRIM ZADD ZCARD ZCOUNT ZINCRBY ZLEXCOUNT ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER
    ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE
    ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE
    """.split()  # noqa: SIM905 - a table to read
)
"""Commands whose only key is their first argument."""


class ClusterNode(redis.asyncio.cluster.ClusterNode):
    """A node of a cluster, which sends over a native connection that all its callers share."""

    __slots__ = ("_engine", "_is_native", "_reads")

    def __init__(self, host: str, port: int, server_type: str | None = None, **keywords: Any) -> None:
        super().__init__(host, port, server_type, **keywords)
        self._engine: Engine | None = None
        self._is_native = True
        on_connect = keywords.get("redis_connect_func")
        # The cluster's own says READONLY; anybody else's is not ours to run.
        self._reads = getattr(on_connect, "__func__", None) is redis.asyncio.cluster.RedisCluster.on_connect

    def native_engine(self) -> Engine | None:
        """Return the native connections on the loop that runs; None where redis-py's own are to be used."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        engine = self._engine
        if engine is not None and engine.loop is loop:
            return engine
        is_plain = self.connection_class is redis.asyncio.Connection
        if not self._is_native or not is_plain or not isinstance(loop, EventLoop):
            return None
        keywords = dict(self.connection_kwargs)
        if self._reads:
            del keywords["redis_connect_func"]
        try:
            settings = connection_settings(keywords)
        except NotNative:
            self._is_native = False
            return None
        # As with redis-py, it is the cluster that tries again: another node may have the slot by then.
        settings |= {"backoff": (0.0, 0.0, 0), "read_only": self._reads}
        self._engine = Engine(loop, settings, self.response_callbacks, None, self.max_connections)
        return self._engine

    async def execute_command(self, *arguments: Any, asking: bool = False, **options: Any) -> Any:
        """Run a command on this node."""
        engine = self.native_engine()
        if engine is not None:
            if asking and _redis_route(arguments) == "shared":
                return await self._execute_asking(engine, arguments, options)
            reply = engine.shared.execute(arguments, options)
            if reply is not None:
                return await reply
            if _redis_route(arguments) == "blocking":
                return await engine.execute_blocking(arguments, options)
        if asking:
            await super().execute_command("ASKING")
        return await super().execute_command(*arguments, asking=asking, **options)

    async def _execute_asking(
        self, engine: Engine, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Run a command right behind ASKING: nobody else's may come between."""
        connection = engine.connection()
        try:
            await connection.execute(("ASKING",), {}, True)
            return await connection.execute(arguments, options, True)
        finally:
            connection.close()

    async def execute_pipeline(self, commands: list[PipelineCommand]) -> bool:
        """Run commands in one write; tell whether one of them failed."""
        engine = self.native_engine()
        pairs = [(command.args, command.kwargs) for command in commands]
        replies = None if engine is None else engine.shared.execute_several(pairs, False)
        if engine is None or replies is None:
            return await super().execute_pipeline(commands)
        try:
            results = engine.shared.shape_replies(pairs, await replies)
        except _LOST as error:
            results = [error] * len(commands)
        for command, result in zip(commands, results, strict=True):
            command.result = result
        return any(isinstance(result, Exception) for result in results)

    def close_native(self) -> None:
        """Close the native connections; who waits gets a ConnectionError."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()


class _Nodes(NodesManager):
    """redis-py's manager, with nodes of ours."""

    __slots__ = ()

    def set_nodes(self, old: dict[str, Any], new: dict[str, Any], remove_old: bool = False) -> None:
        """Take over what is known of the nodes."""
        # Nodes that are gone lose their connections when their last command is over.
        super().set_nodes(old, {name: self._native(node) for name, node in new.items()}, remove_old)

    def _native(self, node: redis.asyncio.cluster.ClusterNode) -> ClusterNode:
        if isinstance(node, ClusterNode):
            return node
        known = self.startup_nodes.get(node.name)
        if isinstance(known, ClusterNode):
            known.server_type = node.server_type
            return known
        return ClusterNode(node.host, int(node.port), node.server_type, **self.connection_kwargs)

    async def move_slot(self, e: AskError | MovedError) -> None:
        """Take over what a redirection says."""
        if self.get_node(host=e.host, port=e.port) is None:
            node = ClusterNode(e.host, e.port, "primary", **self.connection_kwargs)
            self.set_nodes(self.nodes_cache, {node.name: node})
        await super().move_slot(e)


class RedisCluster(redis.asyncio.cluster.RedisCluster):
    """redis-py's asyncio cluster client on native connections.

    It takes redis-py's arguments and two more. With ``split_multikey`` MGET and MSET whose keys are in
    several slots are split, and are not atomic then; without, they are refused as redis-py does.
    ``idempotent`` names commands that may run twice: those and all that only read are sent again where a
    connection died before the reply. Others raise then; as long as a command cannot have run it is tried
    again, whichever it is.
    """

    def __init__(
        self, *arguments: Any, split_multikey: bool = False, idempotent: Any = (), **keywords: Any
    ) -> None:
        super().__init__(*arguments, **keywords)
        self._splits_multikey = split_multikey
        self._repeatable = READ_COMMANDS | {str(name).upper() for name in idempotent}
        self._lost_in_a_row = 0
        self._lost_last = 0.0
        self._unhurried: asyncio.Task[None] | None = None
        theirs = self.nodes_manager
        nodes = [
            ClusterNode(node.host, int(node.port), node.server_type, **self.connection_kwargs)
            for node in theirs.startup_nodes.values()
        ]
        self.startup_nodes = nodes  # type: ignore[assignment]
        self.nodes_manager = _Nodes(
            nodes,  # type: ignore[arg-type]
            theirs.require_full_coverage,
            theirs.connection_kwargs,
            dynamic_startup_nodes=theirs._dynamic_startup_nodes,
            address_remap=theirs.address_remap,
            event_dispatcher=theirs._event_dispatcher,
        )

    def execute_command(self, *arguments: Any, **options: Any) -> Awaitable[Any]:
        """Return an awaitable of the reply to a command."""
        name = arguments[0] if arguments else None
        if self._initialize or name not in _ONE_KEY or len(arguments) < 2 or "target_nodes" in options:
            return self._execute_otherwise(arguments, options)
        return self._execute_with_one_key(arguments, options)

    async def _execute_with_one_key(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Run an ordinary command where its slot is known to be."""
        if not isinstance(asyncio.get_running_loop(), EventLoop):
            return await self._execute_otherwise(arguments, options)
        name = arguments[0]
        slot = key_slot(self.encoder.encode(arguments[1]))
        reads = name in READ_COMMANDS
        strategy = self.load_balancing_strategy if reads else None
        try:
            node = self.nodes_manager.get_node_from_slot(slot, self.read_from_replicas and reads, strategy)
            engine = node.native_engine()  # type: ignore[attr-defined]
            reply = None if engine is None else engine.shared.execute(arguments, options)
            if reply is not None:
                return await reply
        except (MovedError, AskError, TryAgainError, *_UNSETTLED):
            # It did not run. The long way sees it again, and knows what to do.
            pass
        except _LOST as error:
            if isinstance(error, MaxConnectionsError):
                raise
            self._note_lost(node, error)
            if getattr(error, "may_have_run", False) and name not in self._repeatable:
                raise
        return await self._execute_otherwise(arguments, options)

    async def _execute_otherwise(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Run a command as redis-py does; split it where that is wanted."""
        name = str_if_bytes(arguments[0]).upper() if arguments else ""
        if self._splits_multikey and name in _SPLIT and "target_nodes" not in options:
            step = 1 if name == "MGET" else 2
            slots = {key_slot(self.encoder.encode(key)) for key in arguments[1::step]}
            if len(slots) > 1:
                return await self._execute_split(name, step, arguments, options)
        try:
            return await super().execute_command(*arguments, **options)
        except _MayHaveRun as error:
            raise error.lost from None

    async def _execute_split(
        self, name: str, step: int, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Run a command once for each slot, at the same time."""
        places: dict[int, list[int]] = {}
        for place in range(1, len(arguments), step):
            places.setdefault(key_slot(self.encoder.encode(arguments[place])), []).append(place)
        options = {key: value for key, value in options.items() if key != "keys"}
        parts = [
            self.execute_command(
                name, *(word for place in slot for word in arguments[place : place + step]), **options
            )
            for slot in places.values()
        ]
        replies = await asyncio.gather(*parts)
        if name == "MSET":
            return all(replies)
        found = {
            place: value
            for slot, values in zip(places.values(), replies, strict=True)
            for place, value in zip(slot, values, strict=True)
        }
        return [found[place] for place in range(1, len(arguments))]

    async def _split_command_across_slots(self, command: str, *keys: Any) -> int:
        """Run a command that counts keys once for each slot, at the same time; return the sum."""
        parts = self._partition_keys_by_slot(keys).values()
        return sum(await asyncio.gather(*(self.execute_command(command, *part) for part in parts)))

    async def _execute_command(self, target_node: Any, *arguments: Any, **options: Any) -> Any:
        """Run a command on a node, or wherever that one says."""
        node, asking = target_node, False
        for attempt in range(self.RedisClusterRequestTTL):
            try:
                reply = await node.execute_command(*arguments, asking=asking, **options)
            except MaxConnectionsError:
                raise
            except _LOST as error:
                self._note_lost(node, error)
                repeats = str_if_bytes(arguments[0]).upper() in self._repeatable
                if getattr(error, "may_have_run", False) and not repeats:
                    raise _MayHaveRun(error) from error
                raise
            except _UNSETTLED:
                self._initialize = True
                await asyncio.sleep(0.25)
                raise
            except MovedError as error:
                asking = False
                self.reinitialize_counter += 1
                await self.nodes_manager.move_slot(error)
                if self.reinitialize_steps and self.reinitialize_counter % self.reinitialize_steps == 0:
                    self.reinitialize_counter = 0
                    self._initialize = True
                node = self.get_node(host=error.host, port=error.port) or node
            except AskError as error:
                asking = True
                node = self.get_node(host=error.host, port=error.port)
                if node is None:
                    node = ClusterNode(error.host, error.port, "primary", **self.connection_kwargs)
                    self.nodes_manager.set_nodes(self.nodes_manager.nodes_cache, {node.name: node})
            except TryAgainError:
                if attempt > self.RedisClusterRequestTTL / 2:
                    await asyncio.sleep(0.05)
            else:
                return reply
        raise ClusterError("TTL exhausted.")

    def _note_lost(self, node: Any, error: Any) -> None:
        """A node did not answer: the slots are read anew before the next attempt, from another one."""
        error.last_failed_node_name = node.name
        self.nodes_manager.move_node_to_end_of_cached_nodes(node.name)
        self._initialize = True

    async def initialize(
        self, additional_startup_nodes_info: Any = None, last_failed_node_name: str | None = None
    ) -> "RedisCluster":
        """Read who has which slots, unless it is known; after a failure with the back-off's next wait."""
        if self._initialize and last_failed_node_name is not None:
            # redis-py does not wait, and has used up its attempts before the other nodes know of a failure.
            await self._wait_before_reading_again()
        await super().initialize(additional_startup_nodes_info, last_failed_node_name)
        return self

    async def _wait_before_reading_again(self) -> None:
        """Wait, together with everybody else who does."""
        if self._unhurried is None or self._unhurried.done():
            now = asyncio.get_running_loop().time()
            is_new = now > self._lost_last + _FORGOTTEN_AFTER
            self._lost_last = now
            self._lost_in_a_row = 1 if is_new else self._lost_in_a_row + 1
            seconds = self.retry._backoff.compute(self._lost_in_a_row)
            self._unhurried = asyncio.create_task(asyncio.sleep(seconds))
        await asyncio.wait([self._unhurried])

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> "ClusterPipeline":
        """Return a pipeline: commands that leave in one write for each node."""
        if shard_hint:
            raise RedisClusterException("shard_hint is deprecated in cluster mode")
        return ClusterPipeline(self, transaction)  # type: ignore[abstract]

    async def aclose(self) -> None:
        """Close all connections; who waits for a reply gets a ConnectionError."""
        nodes = [*self.nodes_manager.nodes_cache.values(), *self.nodes_manager.startup_nodes.values()]
        if self._unhurried is not None:
            self._unhurried.cancel()
            self._unhurried = None
        await super().aclose()
        for node in nodes:
            if isinstance(node, ClusterNode):
                node.close_native()


class _MayHaveRun(Exception):
    """Takes an error past redis-py's attempts: the command may have run."""

    def __init__(self, lost: Any) -> None:
        super().__init__(lost)
        self.lost = lost


class ClusterPipeline(redis.asyncio.cluster.ClusterPipeline):
    """redis-py's pipeline over the nodes' native connections; transactions are redis-py's own."""

    def __init__(self, client: RedisCluster, transaction: bool | None = None) -> None:
        super().__init__(client, transaction)
        if not transaction:
            self._execution_strategy = _Together(self)


class _Together(redis.asyncio.cluster.PipelineStrategy):
    """Runs what was collected, in one write for each node."""

    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> list[Any]:
        """Run it; again what cannot have run or may run twice, after the slots were read anew."""
        client = self._pipe.cluster_client
        stack = self._command_queue
        if not stack:
            return []
        failed: str | None = None
        attempts = client.retry.get_retries() + 1
        try:
            for left in reversed(range(attempts)):
                was_sent = False
                try:
                    if client._initialize:
                        await client.initialize(last_failed_node_name=failed)
                    was_sent = True
                    return await self._execute(client, stack, raise_on_error, allow_redirections)
                except (*_LOST, *_UNSETTLED) as error:
                    client._initialize = True
                    failed = failed or ""
                    was_sent = was_sent and not isinstance(error, SlotNotCoveredError)
                    if not left or (was_sent and not self._may_be_sent_again(client, stack)):
                        raise
            raise ClusterError("no attempt was allowed")
        finally:
            await self.reset()

    def _may_be_sent_again(self, client: Any, stack: list[PipelineCommand]) -> bool:
        """Tell whether nothing of it has run that may not run twice."""
        if all(str_if_bytes(command.args[0]).upper() in client._repeatable for command in stack):
            return True
        lost = [command.result for command in stack if isinstance(command.result, _LOST)]
        may_have_run = any(getattr(each, "may_have_run", False) for each in lost)
        # A part that ran would run again, as far as its results are false.
        return not may_have_run and all(isinstance(command.result, Exception) for command in stack)
