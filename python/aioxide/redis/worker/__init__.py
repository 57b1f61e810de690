"""Workers of a consumer group: `StreamWorker` runs a coroutine function for every event of a Redis stream."""

from .events import Event, EventsFailed, Reject
from .stream_worker import StreamWorker

__all__ = ["Event", "EventsFailed", "Reject", "StreamWorker"]
