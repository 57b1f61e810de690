"""What a user of debug mode reads: the same texts, for the same mistakes, as with stock asyncio."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import socket
import sys
import time
import warnings

import pytest
from programs import run_program


def messages(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "asyncio"]


# Slow callbacks.

# The class of newer Pythons has another name.
THREADSAFE_HANDLE = "_ThreadSafeHandle " if hasattr(asyncio.events, "_ThreadSafeHandle") else "Handle "


def test_a_slow_task_is_named(loop, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01

    async def slow() -> None:
        time.sleep(0.02)

    async def main() -> None:
        await asyncio.create_task(slow(), name="the slow one")

    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(main())
    # On a busy machine the task that waits for it may be slow, too.
    (found,) = (text for text in messages(caplog) if "<Task finished name='the slow one'" in text[:50])
    pattern = (
        r"Executing <Task finished name='the slow one' coro=<.*slow\(\) done, "
        r"defined at .*test_debug_messages\.py:\d+> result=None created at .*> took \d+\.\d{3} seconds"
    )
    assert re.fullmatch(pattern, found)


def test_a_slow_step_shows_where_the_task_is(loop, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01

    async def slow() -> None:
        time.sleep(0.02)
        await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(slow())
    pattern = (
        r"Executing <Task pending name='Task-\d+' coro=<.*slow\(\) running at "
        r".*test_debug_messages\.py:\d+> .*created at .*> took 0\.\d{3} seconds"
    )
    assert [text for text in messages(caplog) if re.fullmatch(pattern, text)]


@pytest.mark.parametrize("kind", ["call_soon", "call_later", "add_reader", "call_soon_threadsafe"])
def test_a_slow_callback_shows_its_handle(loop, caplog, kind):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    near, far = socket.socketpair()

    def slow(argument: str) -> None:
        loop.remove_reader(near)
        time.sleep(0.02)
        loop.stop()

    if kind == "call_later":
        loop.call_later(0, slow, "argument")
    elif kind == "add_reader":
        loop.add_reader(near, slow, "argument")
        far.send(b"x")
    else:
        getattr(loop, kind)(slow, "argument")
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_forever()
    near.close()
    far.close()
    (text,) = messages(caplog)
    name = {"call_later": "TimerHandle when=", "call_soon_threadsafe": THREADSAFE_HANDLE}.get(kind, "Handle ")
    assert text.startswith(f"Executing <{name}")
    assert re.search(r"seconds$", text)
    if kind != "add_reader":  # whose callback is cancelled, and so forgotten, when it is removed
        assert "slow('argument') at " in text
        assert "created at " in text


def test_the_limit_can_be_changed_while_running(loop, caplog):
    loop.set_debug(True)

    async def main() -> None:
        loop.slow_callback_duration = 10
        time.sleep(0.02)
        await asyncio.sleep(0)
        loop.slow_callback_duration = 0.01
        assert loop.slow_callback_duration == 0.01
        await asyncio.sleep(0)
        time.sleep(0.02)

    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(main())
    assert len([text for text in messages(caplog) if "main()" in text and "took" in text]) == 1


async def test_slow_name_resolution_is_logged(loop, caplog, monkeypatch):
    def slow(*arguments: object) -> list[object]:
        time.sleep(0.02)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]

    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with caplog.at_level(logging.DEBUG, "asyncio"):
        await loop.getaddrinfo("a.name.invalid", 1)
    assert "Get address info a.name.invalid:1" in messages(caplog)
    pattern = r"Getting address info a\.name\.invalid:1 took \d+\.\d{3}ms: \[.*\]"
    (record,) = [record for record in caplog.records if re.fullmatch(pattern, record.getMessage())]
    assert record.levelno == logging.INFO


# Refusals.


@pytest.mark.parametrize(
    "method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at", "run_in_executor"]
)
@pytest.mark.parametrize("wrong", ["coroutine", "coroutine function", "text"])
async def test_what_cannot_be_called_is_refused(loop, method, wrong):
    async def function() -> None:
        """Never run."""

    callback = function() if wrong == "coroutine" else function if wrong == "coroutine function" else "text"
    first = (0,) if method in ("call_later", "call_at") else (None,) if method == "run_in_executor" else ()
    loop.set_debug(True)
    expected = "a callable object was expected by" if wrong == "text" else "coroutines cannot be used with"
    named = "call_at" if method == "call_later" else method
    with pytest.raises(TypeError, match=rf"{expected} {named}\(\)"):
        getattr(loop, method)(*first, callback)
    if wrong == "coroutine":
        callback.close()


@pytest.mark.parametrize("switched", ["before", "while"])
def test_another_thread_is_refused(loop, switched):
    loop.set_debug(switched == "before")

    async def main() -> list[str]:
        loop.set_debug(True)
        refused = []

        def work() -> None:
            for use in (
                lambda: loop.call_soon(int),
                lambda: loop.call_later(1, int),
                lambda: loop.call_at(1, int),
                lambda: asyncio.Future(loop=loop).add_done_callback(int) or future.set_result(None),
            ):
                try:
                    use()
                except RuntimeError as error:
                    refused.append(str(error))

        future = loop.create_future()
        future.add_done_callback(int)
        await asyncio.to_thread(work)
        return refused

    text = "Non-thread-safe operation invoked on an event loop other than the current one"
    assert loop.run_until_complete(main()) == [text] * 4


# Where things come from.


def test_an_exception_in_a_callback_tells_where_it_was_scheduled(loop, caplog):
    loop.set_debug(True)
    loop.set_exception_handler(None)

    def fail() -> None:
        raise LookupError("on purpose")

    def outer() -> None:
        loop.call_soon(fail)

    loop.call_soon(outer)
    with caplog.at_level(logging.ERROR, "asyncio"):
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0))
    text = next(text for text in messages(caplog) if text.startswith("Exception in callback"))
    assert re.match(r"Exception in callback .*fail\(\) at .*:\d+\n", text)
    assert "handle: <Handle " in text
    assert "source_traceback: Object created at (most recent call last):" in text
    assert "loop.call_soon(fail)" in text
    caplog.clear()


async def test_a_failed_task_that_nobody_awaited_tells_where_it_was_made(loop, caplog):
    async def fail() -> None:
        raise LookupError("on purpose")

    loop.set_debug(True)
    loop.set_exception_handler(None)
    with caplog.at_level(logging.ERROR, "asyncio"):
        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        del task
        gc.collect()
    text = next(text for text in messages(caplog) if "never retrieved" in text)
    assert "source_traceback: Object created at (most recent call last):" in text
    assert "asyncio.create_task(fail())" in text
    caplog.clear()


async def test_a_pending_task_that_was_destroyed_is_reported(loop, caplog):
    loop.set_debug(True)
    loop.set_exception_handler(None)

    async def wait() -> None:
        await asyncio.Future()

    with caplog.at_level(logging.ERROR, "asyncio"):
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        del task
        gc.collect()
        await asyncio.sleep(0)
    assert any("Task was destroyed but it is pending!" in text for text in messages(caplog))
    caplog.clear()


async def test_a_coroutine_that_was_never_awaited_tells_where_it_was_made(loop):
    loop.set_debug(True)

    async def forgotten() -> None:
        """Never run."""

    await asyncio.sleep(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forgotten()
        gc.collect()
    (warning,) = caught
    assert "was never awaited\nCoroutine created at (most recent call last)" in str(warning.message)
    assert __file__ in str(warning.message)


# Programs under -X dev: what comes out on stderr.

PROGRAMS = {
    "an unclosed loop": (
        """
        import gc
        loop = factory()
        loop.run_until_complete(asyncio.sleep(0))
        del loop
        gc.collect()
        """,
        [r"ResourceWarning: unclosed event loop <"],
    ),
    "an unclosed connection": (
        """
        import socket
        near, far = socket.socketpair()
        near.setblocking(False)
        loop = factory()
        loop.run_until_complete(loop.connect_accepted_socket(asyncio.Protocol, near))
        loop.close()
        del near
        """,
        [r"ResourceWarning: unclosed transport <"],
    ),
    "an unclosed stream": (
        """
        import gc
        async def main():
            server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            del _, writer
            gc.collect()
            server.close()
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
        """,
        [r"ResourceWarning: unclosed (<StreamWriter|transport <)"],
    ),
    "an unclosed subprocess": (
        """
        import gc
        async def main():
            await asyncio.create_subprocess_exec("sleep", "0.2")
        loop = factory()
        loop.run_until_complete(main())
        gc.collect()
        loop.close()
        gc.collect()
        """,
        [r"ResourceWarning: unclosed transport <_\w*SubprocessTransport pid=\d+ running"],
    ),
    "an unclosed datagram endpoint": (
        """
        import gc
        async def main():
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        loop = factory()
        loop.run_until_complete(main())
        loop.close()
        gc.collect()
        """,
        [r"ResourceWarning: unclosed transport <"],
    ),
    "an unclosed pipe": (
        """
        import gc
        async def main():
            reader, writer = os.pipe()
            await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(reader, "rb"))
            await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writer, "wb"))
        loop = factory()
        loop.run_until_complete(main())
        loop.close()
        gc.collect()
        """,
        [r"ResourceWarning: unclosed transport <", r"ResourceWarning: unclosed transport <"],
    ),
    "a slow callback": (
        """
        async def main():
            time.sleep(0.15)
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
        """,
        [r"Executing <Task finished name='Task-1' coro=<main\(\) done.*created at .*> took 0\.\d+ seconds"],
    ),
    "a coroutine that is never awaited": (
        """
        async def forgotten():
            pass
        async def main():
            forgotten()
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
        """,
        [
            r"RuntimeWarning: coroutine 'forgotten' was never awaited",
            r"Coroutine created at \(most recent call last\)",
        ],
    ),
}


@pytest.mark.parametrize("mode", ["-Xdev", "PYTHONASYNCIODEBUG"])
@pytest.mark.parametrize("mistake", list(PROGRAMS))
def test_a_program_is_told_its_mistake(loop_name, loop_factory, mistake, mode):
    if mistake == "an unclosed subprocess" and loop_name == "asyncio" and sys.version_info < (3, 12):
        pytest.skip("the thread that waits keeps the transport until the interpreter is gone")
    body, patterns = PROGRAMS[mistake]
    if mode == "-Xdev":
        done = run_program(loop_name, body, "-Xdev")
    else:
        done = run_program(loop_name, body, "-Wdefault", PYTHONASYNCIODEBUG="1")
    remaining = done.stderr
    for pattern in patterns:
        found = re.search(pattern, remaining)
        assert found, f"{pattern} is not in\n{done.stderr}"
        remaining = remaining[found.end() :]


@pytest.mark.parametrize(
    ("options", "variables", "expected"),
    [
        ((), {}, "False"),
        (("-Xdev",), {}, "True"),
        ((), {"PYTHONASYNCIODEBUG": "1"}, "True"),
        (("-E",), {"PYTHONASYNCIODEBUG": "1"}, "False"),
        ((), {"PYTHONDEVMODE": "1"}, "True"),
    ],
    ids=str,
)
def test_debug_mode_is_asked_for_as_with_asyncio(loop_name, loop_factory, options, variables, expected):
    body = "loop = factory()\nprint(loop.get_debug())\nloop.close()\n"
    done = run_program(loop_name, body, *options, **variables)
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize("debug", [True, False, None])
def test_a_runner_sets_debug_mode(loop_factory, debug, monkeypatch):
    monkeypatch.delenv("PYTHONASYNCIODEBUG", raising=False)

    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        assert runner.run(main()) is (sys.flags.dev_mode if debug is None else debug)


def test_closing_says_so(loop_factory, caplog):
    other = loop_factory()
    other.set_debug(True)
    with caplog.at_level(logging.DEBUG, "asyncio"):
        other.close()
    text = messages(caplog)[-1]
    assert text.startswith("Close <")
    assert "debug=True" in text
