"""The names of aioredis 1: programs and tutorials of its time run on aioxide's client.

`import aioxide.redis as aioredis`, then `await aioredis.create_redis_pool("redis://localhost")`. New programs
are better served by `aioxide.redis.Redis`. What differs from aioredis 1.3: one connection carries the
commands of all callers, so `minsize` means nothing and `maxsize` bounds the connections of blocking commands;
`loop` is ignored; `parser`, `commands_factory` and `aioredis.pubsub.Receiver` are not there.
"""

from .channels import Channel
from .connection import Connection, ConnectionsPool, create_connection, create_pool
from .errors import (
    AuthError,
    ChannelClosedError,
    ConnectionClosedError,
    MaxClientsError,
    MultiExecError,
    PipelineError,
    PoolClosedError,
    ProtocolError,
    ReadOnlyError,
    RedisError,
    ReplyError,
    WatchVariableError,
)
from .redis import Redis, create_redis, create_redis_pool

__all__ = [
    "AuthError",
    "Channel",
    "ChannelClosedError",
    "Connection",
    "ConnectionClosedError",
    "ConnectionsPool",
    "MaxClientsError",
    "MultiExecError",
    "PipelineError",
    "PoolClosedError",
    "ProtocolError",
    "ReadOnlyError",
    "Redis",
    "RedisError",
    "ReplyError",
    "WatchVariableError",
    "create_connection",
    "create_pool",
    "create_redis",
    "create_redis_pool",
]
