"""Name servers that fail, hang, answer late, or answer when nobody is there to hear."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import subprocess
import sys
import threading

import pytest
from peers import listening
from recorder import Recorder

LIMIT = 20.0
NOTHING = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class NameServer:
    """Stands in for `socket.getaddrinfo`: `*.hangs` has no answer before `answer` is set, `*.fails` never."""

    def __init__(self, genuine):
        self.genuine = genuine
        self.answer = threading.Event()
        self.asked = threading.Semaphore(0)
        self.error: Exception = NOTHING

    def __call__(self, host, port, *hints, **options):
        if str(host).endswith(".hangs"):
            self.asked.release()
            assert self.answer.wait(LIMIT), "nobody let the name server answer"
            return self.genuine("127.0.0.1", port, *hints, **options)
        if str(host).endswith(".fails"):
            raise self.error
        return self.genuine(host, port, *hints, **options)

    async def was_asked(self, times=1):
        """Wait until a question has arrived, without the default executor."""
        for _ in range(times):
            while not self.asked.acquire(blocking=False):
                await asyncio.sleep(0.001)


@pytest.fixture
def names(monkeypatch):
    """Put a `NameServer` in place of the machine's."""
    server = NameServer(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", server)
    yield server
    server.answer.set()


@pytest.mark.parametrize(
    "error",
    [
        NOTHING,
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        OSError(errno.EMFILE, "Too many open files"),
        UnicodeError("label too long"),
        ValueError("something else"),
    ],
    ids=repr,
)
async def test_a_failure_reaches_whoever_asked(loop, names, error):
    names.error = error
    for ask in (
        lambda: loop.getaddrinfo("name.fails", 80),
        lambda: loop.create_connection(asyncio.Protocol, "name.fails", 80),
        lambda: loop.create_server(asyncio.Protocol, "name.fails", 80),
        lambda: asyncio.open_connection("name.fails", 80),
    ):
        with pytest.raises(type(error), match=str(error).rpartition("]")[2].strip()):
            await ask()
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(type(error)):
            await loop.sock_connect(sock, ("name.fails", 80))


async def test_a_server_of_several_names_fails_whole(loop, names):
    with pytest.raises(socket.gaierror):
        await loop.create_server(asyncio.Protocol, ["127.0.0.1", "name.fails"], 0)


async def test_no_answer_at_all_is_an_os_error(loop, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *question, **hints: [])
    with pytest.raises(OSError, match="getaddrinfo"):
        await loop.create_connection(asyncio.Protocol, "name.empty", 80)
    with pytest.raises(OSError, match="getaddrinfo"):
        await loop.create_server(asyncio.Protocol, "name.empty", 80)


async def test_a_late_answer_is_an_answer(loop, names):
    with listening() as server:
        connecting = asyncio.ensure_future(
            loop.create_connection(lambda: Recorder(loop), "name.hangs", server.getsockname()[1])
        )
        await names.was_asked()
        await asyncio.sleep(0.001)
        assert not connecting.done()
        names.answer.set()
        transport, protocol = await connecting
        transport.abort()
        await protocol.lost


async def test_a_question_can_be_given_up(loop, names):
    asking = [
        asyncio.ensure_future(loop.getaddrinfo("name.hangs", 80)),
        asyncio.ensure_future(loop.create_connection(asyncio.Protocol, "name.hangs", 80)),
    ]
    await names.was_asked(2)
    for task in asking:
        task.cancel()
    for task in asking:
        with pytest.raises(asyncio.CancelledError):
            await task
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await loop.getaddrinfo("name.hangs", 80)
    names.answer.set()  # and nobody hears it
    assert await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)


async def test_hanging_questions_stop_neither_addresses_nor_the_executor(loop, names, is_aioxide):
    # asyncio asks on the default executor, whose threads run out.
    number = 100 if is_aioxide else 2
    asking = [asyncio.ensure_future(loop.getaddrinfo(f"{index}.hangs", 80)) for index in range(number)]
    await names.was_asked(2)
    async with asyncio.timeout(LIMIT):
        assert await asyncio.to_thread(int, "1") == 1
        assert await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        assert await loop.getaddrinfo("::1", 80, type=socket.SOCK_STREAM)
        assert await loop.getaddrinfo(None, 80, type=socket.SOCK_STREAM)
        with listening() as server:
            transport, protocol = await loop.create_connection(lambda: Recorder(loop), *server.getsockname())
            transport.abort()
            await protocol.lost
    assert not any(task.done() for task in asking)
    names.answer.set()
    answers = await asyncio.gather(*asking)
    assert all(answer[0][4] == ("127.0.0.1", 80) for answer in answers)


async def test_threads_do_not_grow_with_the_questions(loop, names, is_aioxide):
    before = threading.active_count()
    asking = [asyncio.ensure_future(loop.getaddrinfo(f"{index}.hangs", 80)) for index in range(500)]
    await names.was_asked(2)
    assert threading.active_count() - before <= (8 if is_aioxide else 40)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    names.answer.set()


def test_a_loop_closes_while_a_question_hangs(loop, names, is_aioxide):
    async def main():
        asking = asyncio.ensure_future(loop.getaddrinfo("name.hangs", 80))
        await names.was_asked()
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking

    loop.run_until_complete(main())
    if is_aioxide:
        loop.run_until_complete(loop.shutdown_default_executor())  # has nothing to wait for
        loop.close()
    names.answer.set()


def test_an_answer_after_the_loop_is_closed_is_not_heard(loop_factory, names, is_aioxide, capfd):
    if not is_aioxide:
        pytest.skip("asyncio's close leaves the answer to whoever joins the executor")
    loop = loop_factory()
    asking = [asyncio.ensure_future(loop.getaddrinfo("name.hangs", 80), loop=loop) for _ in range(20)]
    loop.run_until_complete(names.was_asked(1))
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("aioxide-lookup")]
    assert threads
    loop.close()
    for task in asking:
        task._log_destroy_pending = False
    del asking
    names.answer.set()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert capfd.readouterr().err == ""


def test_a_program_ends_while_a_question_hangs(loop_name, loop_factory, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio waits for the answer")
    program = (
        "import asyncio, socket, sys, threading, aioxide\n"
        "asked = threading.Event()\n"
        "def never(*question, **hints):\n"
        "    asked.set()\n"
        "    threading.Event().wait()\n"
        "socket.getaddrinfo = never\n"
        "async def main():\n"
        "    asking = asyncio.ensure_future(asyncio.open_connection('name.hangs', 80))\n"
        "    while not asked.is_set():\n"
        "        await asyncio.sleep(0.001)\n"
        "    print('done')\n"
        "aioxide.run(main(), loop_factory=lambda: aioxide.EventLoop(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, loop_name], capture_output=True, text=True, timeout=LIMIT
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
