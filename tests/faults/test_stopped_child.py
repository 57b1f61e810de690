"""A child process that was stopped by a signal is neither dead nor awake."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import pytest
from leaks import children

PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


async def state(process, expected):
    """Wait until the kernel says that the process is in a state of proc(5)."""
    async with asyncio.timeout(20):
        while True:
            with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
                if file.read().rpartition(")")[2].split()[0] in expected:
                    return
            await asyncio.sleep(0.002)


async def stopped_cat():
    process = await asyncio.create_subprocess_exec("cat", **PIPES)
    process.send_signal(signal.SIGSTOP)
    await state(process, "T")
    return process


async def test_it_has_not_ended(loop):
    process = await stopped_cat()
    waiting = asyncio.ensure_future(process.wait())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.05)
    assert process.returncode is None
    process.kill()
    assert await waiting == -signal.SIGKILL
    assert children() == []
    process.stdin.close()


async def test_it_goes_on_where_it_stopped(loop):
    process = await stopped_cat()
    asking = asyncio.ensure_future(process.communicate(b"hello"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asking), 0.05)
    process.send_signal(signal.SIGCONT)
    assert await asking == (b"hello", None)
    assert process.returncode == 0


async def test_stopping_and_continuing_are_no_exits(loop):
    process = await asyncio.create_subprocess_exec("cat", **PIPES)
    for _ in range(20):
        process.send_signal(signal.SIGSTOP)
        await state(process, "T")
        process.send_signal(signal.SIGCONT)
        await state(process, "SR")
    assert process.returncode is None
    assert await process.communicate(b"still here") == (b"still here", None)
    assert process.returncode == 0


async def test_a_writer_to_it_is_paused_and_freed_by_its_end(loop):
    process = await stopped_cat()
    process.stdin.write(bytes(8 << 20))
    draining = asyncio.ensure_future(process.stdin.drain())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(draining), 0.05)
    process.kill()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await draining
    assert await process.wait() == -signal.SIGKILL
    assert process.stdin.transport.get_write_buffer_size() == 0
    process.stdin.close()


async def test_terminating_it_waits_until_it_is_continued(loop):
    process = await stopped_cat()
    process.terminate()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.wait(), 0.05)
    process.send_signal(signal.SIGCONT)
    assert await process.wait() == -signal.SIGTERM
    process.stdin.close()


async def test_it_does_not_hold_up_the_others(loop):
    stopped = [await stopped_cat() for _ in range(5)]
    for _ in range(10):
        process = await asyncio.create_subprocess_exec("cat", **PIPES)
        assert await process.communicate(b"hello") == (b"hello", None)
    for process in stopped:
        process.kill()
    assert [await process.wait() for process in stopped] == [-signal.SIGKILL] * 5
    for process in stopped:
        process.stdin.close()


def test_a_loop_can_be_closed_beside_it(loop_factory):
    loop = loop_factory()
    process = loop.run_until_complete(stopped_cat())
    popen = process._transport.get_extra_info("subprocess")
    process._transport.close()  # kills it
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    popen.wait(20)  # somebody else may have read the status
    with pytest.raises(ProcessLookupError):
        os.kill(popen.pid, 0)
