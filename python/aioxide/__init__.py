"""asyncio, rebuilt in Rust: `aioxide.run(main())` in place of `asyncio.run(main())`.

This file holds the public names and nothing else.
"""

from __future__ import annotations

import sys

from ._running import new_event_loop, run
from ._rust import __version__, build_info, native_task_factory
from ._streams import (
    StreamReader,
    StreamWriter,
    open_connection,
    open_unix_connection,
    start_server,
    start_unix_server,
)
from .loop import EventLoop

__all__ = [
    "EventLoop",
    "StreamReader",
    "StreamWriter",
    "__version__",
    "build_info",
    "native_task_factory",
    "new_event_loop",
    "open_connection",
    "open_unix_connection",
    "run",
    "start_server",
    "start_unix_server",
]

# Event loop policies leave Python with 3.16, and what installs one leaves with them.
if sys.version_info < (3, 16):
    from ._everywhere import install as install

    __all__ += ["install"]
