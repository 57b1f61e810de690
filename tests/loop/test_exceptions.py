"""Where the exceptions of callbacks, tasks and handlers go."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket

import pytest


def run_once(loop: asyncio.AbstractEventLoop) -> None:
    """Run the callbacks that are ready now."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def fail(*_: object) -> None:
    """Raise the exception these tests look for."""
    raise LookupError("wrong")


def test_an_exception_in_a_callback_is_reported_and_the_loop_goes_on(loop, reported):
    ran: list[str] = []
    handle = loop.call_soon(fail)
    loop.call_soon(ran.append, "next")
    run_once(loop)
    context = reported.pop()
    assert isinstance(context["exception"], LookupError)
    assert context["handle"] is handle
    assert context["message"].startswith("Exception in callback fail(")
    assert ran == ["next"]


def test_a_report_tells_what_a_handle_that_nobody_kept_was_to_call(loop):
    seen: list[tuple[object, object]] = []
    loop.set_exception_handler(
        lambda _, context: seen.append((context["handle"]._callback, context["handle"]._args))
    )
    loop.call_soon(fail, 1, 2)
    loop.call_later(0, fail, 3)
    loop.run_until_complete(asyncio.sleep(0.005))
    assert seen == [(fail, (1, 2)), (fail, (3,))]


def test_an_exception_in_a_timer_is_reported(loop, reported):
    handle = loop.call_later(0, fail)
    loop.run_until_complete(asyncio.sleep(0.005))
    context = reported.pop()
    assert isinstance(context["exception"], LookupError)
    assert context["handle"] is handle


def test_an_exception_in_a_callback_from_another_thread_is_reported(loop, reported):
    loop.run_until_complete(asyncio.to_thread(loop.call_soon_threadsafe, fail))
    loop.run_until_complete(asyncio.sleep(0))
    assert isinstance(reported.pop()["exception"], LookupError)


def test_an_exception_in_a_watcher_is_reported(loop, reported):
    first, second = socket.socketpair()
    with first, second:
        loop.add_reader(first, lambda: (first.recv(1), fail()))
        second.send(b"x")
        loop.run_until_complete(asyncio.sleep(0.01))
        assert isinstance(reported.pop()["exception"], LookupError)
        assert loop.remove_reader(first)


def test_the_default_handler_logs(loop, caplog):
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None
    loop.call_soon(fail)
    with caplog.at_level(logging.ERROR, "asyncio"):
        run_once(loop)
    assert "Exception in callback fail(" in caplog.text
    assert "LookupError: wrong" in caplog.text


def test_the_default_handler_can_be_called_by_name(loop, caplog):
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.default_exception_handler({"message": "called by name", "extra": 42})
    assert "called by name" in caplog.text
    assert "extra: 42" in caplog.text


def test_a_handler_gets_the_loop_and_the_context(loop):
    seen: list[tuple] = []
    handler = lambda *arguments: seen.append(arguments)  # noqa: E731
    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    context = {"message": "text", "exception": LookupError()}
    loop.call_exception_handler(context)
    assert seen == [(loop, context)]


def test_a_handler_that_fails_is_logged_and_not_fatal(loop, caplog):
    loop.set_exception_handler(fail)
    loop.call_soon(fail)
    with caplog.at_level(logging.ERROR, "asyncio"):
        run_once(loop)
    assert "Unhandled error in exception handler" in caplog.text
    caplog.clear()  # the record holds the exception, and so the handle


def test_a_handler_must_be_callable_or_none(loop):
    with pytest.raises(TypeError, match="A callable object or None is expected"):
        loop.set_exception_handler("text")


async def test_an_exception_nobody_asked_for_is_reported(loop, reported):
    task = asyncio.create_task(asyncio.sleep(0))
    await task

    async def failing():
        fail()

    task = asyncio.create_task(failing())
    await asyncio.wait([task])
    del task
    gc.collect()
    context = reported.pop()
    assert "exception was never retrieved" in context["message"]
    assert isinstance(context["exception"], LookupError)


def test_a_task_destroyed_pending_is_reported(loop, reported):
    async def wait_for_ever():
        await asyncio.Future()

    async def main():
        task = asyncio.create_task(wait_for_ever())
        await asyncio.sleep(0)
        del task

    loop.run_until_complete(main())
    gc.collect()
    assert "Task was destroyed but it is pending!" in reported.pop()["message"]
    gc.collect()  # the report held it once more; from Python 3.14 on it is listed until it is freed


@pytest.mark.parametrize("method", ["data_received", "eof_received", "connection_made", "connection_lost"])
async def test_an_exception_in_a_protocol_is_reported(loop, reported, method):
    class Failing(asyncio.Protocol):
        """Fails in one method."""

    setattr(Failing, method, fail)
    first, second = socket.socketpair()
    with second:
        transport, protocol = await loop.create_connection(Failing, sock=first)
        if method in ("data_received",):
            second.send(b"data")
        if method == "eof_received":
            second.shutdown(socket.SHUT_WR)
        if method == "connection_lost":
            transport.close()
        async with asyncio.timeout(5):
            while not reported:
                await asyncio.sleep(0.001)
        context = reported.pop()
        assert isinstance(context["exception"], LookupError)
        if method in ("data_received", "eof_received"):
            assert context["transport"] is transport
            assert context["protocol"] is protocol
            assert transport.is_closing()
        transport.abort()
        await asyncio.sleep(0.001)
