"""Debug mode: where it comes from and what it tells."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time

import pytest


def test_debug_mode_can_be_switched(loop):
    loop.set_debug(False)
    assert loop.get_debug() is False
    loop.set_debug(True)
    assert loop.get_debug() is True
    assert "debug=True" in repr(loop)
    loop.set_debug(False)
    assert loop.get_debug() is False


def test_debug_mode_comes_from_the_environment(loop_name, loop_factory):
    program = (
        "import sys, asyncio\n"
        "loop = asyncio.SelectorEventLoop() if sys.argv[1] == 'asyncio' else None\n"
        "if loop is None:\n"
        "    import aioxide\n"
        "    loop = aioxide.EventLoop(driver=sys.argv[1])\n"
        "print(loop.get_debug())\n"
        "loop.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, loop_name],
        capture_output=True,
        text=True,
        env={"PYTHONASYNCIODEBUG": "1"},
        timeout=30,
    )
    assert done.stdout.strip() == "True", done.stderr


def test_slow_callbacks_are_logged(loop, caplog):
    loop.set_debug(True)
    assert loop.slow_callback_duration == 0.1
    loop.slow_callback_duration = 0.01

    def slow_callback():
        time.sleep(0.02)

    loop.call_soon(slow_callback)
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(asyncio.sleep(0))
    messages = [record.getMessage() for record in caplog.records if "slow_callback" in record.getMessage()]
    assert len(messages) == 1
    assert messages[0].startswith("Executing <Handle")
    assert "seconds" in messages[0]


def test_slow_task_steps_are_logged(loop, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01

    async def slow_step():
        await asyncio.sleep(0)
        time.sleep(0.02)

    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(slow_step())
    messages = [record.getMessage() for record in caplog.records if "slow_step" in record.getMessage()]
    assert len(messages) == 1
    assert messages[0].startswith("Executing <Task")
    assert "took" in messages[0]


def test_nothing_is_slow_without_debug_mode(loop, caplog):
    loop.set_debug(False)
    loop.slow_callback_duration = 0.001
    loop.call_soon(time.sleep, 0.01)
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(asyncio.sleep(0))
    assert caplog.records == []


def test_handles_tell_where_they_were_made(loop):
    loop.set_debug(True)
    handle = loop.call_soon(int)
    timer = loop.call_later(1000, int)
    for one in (handle, timer):
        assert f"created at {__file__}:" in repr(one)
    timer.cancel()
    handle.cancel()
    assert "created at" in repr(handle)
    loop.run_until_complete(asyncio.sleep(0))


def test_reports_tell_where_the_callback_was_made(loop, reported):
    loop.set_debug(True)

    def fail():
        raise LookupError("wrong")

    loop.call_soon(fail)
    loop.run_until_complete(asyncio.sleep(0))
    context = reported.pop()
    assert any(frame.filename == __file__ for frame in context["source_traceback"])


def test_coroutine_origins_are_tracked_while_a_debug_loop_runs(loop):
    async def depth():
        return sys.get_coroutine_origin_tracking_depth()

    loop.set_debug(False)
    assert loop.run_until_complete(depth()) == 0
    loop.set_debug(True)
    assert loop.run_until_complete(depth()) > 0
    assert sys.get_coroutine_origin_tracking_depth() == 0


async def test_debug_mode_can_be_switched_while_running(loop):
    loop.set_debug(True)
    await asyncio.sleep(0.001)
    assert sys.get_coroutine_origin_tracking_depth() > 0
    loop.set_debug(False)
    await asyncio.sleep(0.001)
    assert sys.get_coroutine_origin_tracking_depth() == 0


@pytest.mark.parametrize("debug", [False, True])
async def test_connections_work_in_both_modes(loop, debug):
    loop.set_debug(debug)

    async def serve(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"line\n")
        assert await reader.read() == b"line\n"
        writer.close()
        await writer.wait_closed()
