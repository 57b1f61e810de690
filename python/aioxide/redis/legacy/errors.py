"""aioredis 1's exceptions: redis-py's under the old names, and those that redis-py does not have."""

from __future__ import annotations

from collections.abc import Sequence

from redis.exceptions import (
    AuthenticationError as AuthError,
)
from redis.exceptions import (
    ConnectionError as ConnectionClosedError,
)
from redis.exceptions import (
    InvalidResponse as ProtocolError,
)
from redis.exceptions import (
    MaxConnectionsError as MaxClientsError,
)
from redis.exceptions import (
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import (
    ResponseError as ReplyError,
)

__all__ = [
    "AuthError",
    "ChannelClosedError",
    "ConnectionClosedError",
    "MaxClientsError",
    "MultiExecError",
    "PipelineError",
    "PoolClosedError",
    "ProtocolError",
    "ReadOnlyError",
    "RedisError",
    "ReplyError",
    "WatchVariableError",
]


class PipelineError(RedisError):
    """Commands of a pipeline failed; `args` are the sentence and the list of what failed."""

    def __init__(self, kind: str, errors: Sequence[BaseException]) -> None:
        super().__init__(f"{kind} errors:", list(errors))


class MultiExecError(PipelineError):
    """Commands of a transaction failed."""


class WatchVariableError(MultiExecError):
    """A key that was watched has changed, so nothing of the transaction was done."""


class ChannelClosedError(RedisError):
    """The channel has been unsubscribed, and every message taken."""


class PoolClosedError(RedisError):
    """The pool has been closed."""
