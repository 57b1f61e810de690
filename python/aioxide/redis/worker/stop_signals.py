"""Signals that ask the workers of a loop to stop: several workers in one process share them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

Listeners = dict[signal.Signals, list[Callable[[], None]]]
_listeners: WeakKeyDictionary[asyncio.AbstractEventLoop, Listeners] = WeakKeyDictionary()


@contextlib.contextmanager
def calling(stop: Callable[[], None], signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Have `stop` called for these signals while the block runs, if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        signals = ()
    loop = asyncio.get_running_loop()
    listening = _listeners.setdefault(loop, {})
    before: dict[signal.Signals, Any] = {}
    for number in signals:
        stops = listening.setdefault(number, [])
        if not stops:
            before[number] = signal.getsignal(number)
            loop.add_signal_handler(number, _call_all, stops)
        stops.append(stop)
    try:
        yield
    finally:
        for number in signals:
            stops = listening[number]
            stops.remove(stop)
            if not stops:
                loop.remove_signal_handler(number)
        for number, handler in before.items():
            # What asyncio.run set up for Ctrl-C, for example, is not what removing leaves.
            if not listening[number] and handler is not None:
                signal.signal(number, handler)


def _call_all(stops: list[Callable[[], None]]) -> None:
    for stop in list(stops):
        stop()
