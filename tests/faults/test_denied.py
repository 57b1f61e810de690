"""A machine that denies io_uring, pidfds or single system calls: by seccomp, by sysctl, by limits."""

from __future__ import annotations

import errno
import functools
import os
import textwrap

import pytest
import sandbox

# A program that needs everything: timers, threads, connections, a child process.
WORK = """
import asyncio, contextlib, json, os, sys
import aioxide, concurrent.futures.thread  # while they can be read

async def work():
    loop = asyncio.get_running_loop()

    async def serve(reader, writer):
        writer.write(await reader.readline())
        writer.close()
        await writer.wait_closed()

    async with asyncio.timeout(30):
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\\n")
            assert await reader.readline() == b"hello\\n"
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.001)
        assert await asyncio.to_thread(int, "1") == 1
        process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        assert await process.communicate(b"hello") == (b"hello", None)
"""
REASONS = {
    errno.EPERM: "io_uring denied",
    errno.EACCES: "io_uring denied",
    errno.ENOSYS: "no io_uring",
    errno.EINVAL: "needs Linux",
    errno.ENOMEM: "cannot be set up",
    errno.EMFILE: "cannot be set up",
    errno.ENFILE: "cannot be set up",
}


@functools.cache
def why_no_sandbox() -> str | None:
    return sandbox.why_unavailable()


@pytest.fixture
def sandboxes() -> None:
    """Skip where there is no seccomp."""
    if reason := why_no_sandbox():
        pytest.skip(reason)


def run(program: str, **environment: str) -> None:
    """Run WORK and then the program; the process must not fail."""
    done = sandbox.run(WORK + textwrap.dedent(program), **environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("call", ["io_uring_setup", "io_uring_register", "io_uring_enter"])
@pytest.mark.parametrize("number", REASONS, ids=errno.errorcode.get)
def test_without_io_uring_the_loop_runs_on_epoll_and_says_why(sandboxes, call, number):
    if number == errno.EINVAL and call == "io_uring_enter":
        pytest.skip("not an answer to entering")
    run(
        f"""
        sandbox.deny({call}={number})
        info = aioxide.build_info()
        assert info["driver"] == "epoll", info
        assert {REASONS[number]!r} in info["driver_reason"], info
        loop = aioxide.new_event_loop()
        assert "driver=epoll" in repr(loop)
        loop.run_until_complete(work())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        """,
        AIOXIDE_DRIVER="auto",
    )


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
def test_io_uring_that_was_asked_for_and_is_denied_is_an_error(sandboxes, number):
    run(
        f"""
        sandbox.deny(io_uring_setup={number})
        files = os.listdir("/proc/self/fd")
        for make in (aioxide.new_event_loop, lambda: aioxide.EventLoop("uring")):
            try:
                make()
            except OSError as error:
                assert {REASONS[number]!r} in str(error), error
            else:
                raise AssertionError("it can be had")
        assert os.listdir("/proc/self/fd") == files
        info = aioxide.build_info()
        assert info["driver"] is None, info
        assert {REASONS[number]!r} in info["driver_reason"], info
        aioxide.EventLoop("epoll").close()
        """,
        AIOXIDE_DRIVER="uring",
    )


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM], ids=errno.errorcode.get)
@pytest.mark.parametrize("driver", ["uring"])
def test_a_ring_that_is_denied_later_ends_the_run_and_can_be_closed(
    sandboxes, require_driver, driver, number
):
    run(
        f"""
        loop = aioxide.EventLoop("uring")
        loop.run_until_complete(work())
        loop.run_until_complete(loop.shutdown_default_executor())
        before = len(os.listdir("/proc/self/fd"))
        sandbox.deny(io_uring_enter={number})
        waiting = asyncio.sleep(0.01)
        try:
            loop.run_until_complete(waiting)
        except OSError as error:
            assert error.errno == {number}, error
        else:
            raise AssertionError("it ran without entering")
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False
        loop.close()
        assert len(os.listdir("/proc/self/fd")) < before
        with contextlib.closing(aioxide.EventLoop("auto")) as another:
            assert "driver=epoll" in repr(another)
            another.run_until_complete(work())
            another.run_until_complete(another.shutdown_default_executor())
        """
    )


@pytest.mark.parametrize("driver", ["uring", "epoll"])
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EMFILE], ids=errno.errorcode.get)
def test_without_pidfds_processes_are_waited_for(sandboxes, require_driver, driver, number):
    run(
        f"""
        sandbox.deny(pidfd_open={number})
        loop = aioxide.new_event_loop()
        loop.run_until_complete(work())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        """,
        AIOXIDE_DRIVER=driver,
    )


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOMEM, errno.ENOBUFS], ids=errno.errorcode.get)
def test_a_machine_without_resources_lets_the_loop_go_on(sandboxes, number):
    # io_uring accepts without a system call of its own.
    run(
        f"""
        import socket

        async def main():
            loop = asyncio.get_running_loop()
            told = loop.create_future()
            loop.set_exception_handler(lambda _, context: told.done() or told.set_result(context))
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            sandbox.deny(accept4={number})
            with socket.create_connection(server.sockets[0].getsockname()):
                context = await told
                assert context["message"] == "socket.accept() out of system resource", context
                assert context["exception"].errno == {number}, context
                begin = os.times()
                await asyncio.sleep(0.3)
                assert os.times().user - begin.user < 0.2, "the loop spins"
            server.close()
            await server.wait_closed()

        loop = aioxide.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        """,
        AIOXIDE_DRIVER="epoll",
    )


@pytest.mark.parametrize("call", ["eventfd2", "epoll_create1"])
def test_a_loop_that_cannot_be_made_leaves_nothing(sandboxes, call):
    run(
        f"""
        files = os.listdir("/proc/self/fd")
        sandbox.deny({call}={errno.EMFILE})
        try:
            aioxide.EventLoop("epoll")
        except OSError as error:
            assert error.errno == {errno.EMFILE}, error
        else:
            raise AssertionError("it can be had")
        assert os.listdir("/proc/self/fd") == files
        """
    )


@pytest.mark.parametrize("driver", ["auto", "epoll"])
def test_no_memory_may_be_locked(driver):
    # Only a user without privileges feels this limit.
    run(
        """
        import resource
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        loop = aioxide.new_event_loop()
        loop.run_until_complete(work())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        """,
        AIOXIDE_DRIVER=driver,
    )


SYSCTL = "/proc/sys/kernel/io_uring_disabled"


@pytest.mark.skipif(
    "AIOXIDE_TEST_SYSCTL" not in os.environ,
    reason=f"changes {SYSCTL} for the whole machine; set AIOXIDE_TEST_SYSCTL=1 where nothing else runs",
)
@pytest.mark.parametrize(("value", "user"), [(2, 0), (2, 65534), (1, 65534)])
def test_io_uring_disabled_for_the_machine(value, user):
    if not os.access(SYSCTL, os.W_OK):
        pytest.skip(f"{SYSCTL} cannot be written here")
    # The value is back before anything else happens, and whatever happens.
    run(
        f"""
        switch = open({SYSCTL!r}, "r+")
        before = switch.read()
        switch.seek(0)
        switch.write("{value}")
        try:
            switch.flush()
            os.setresuid({user}, {user}, 0)
            info = aioxide.build_info()
            loop = aioxide.new_event_loop()
        finally:
            os.setresuid(0, 0, 0)
            switch.seek(0)
            switch.write(before)
            switch.close()
        assert open({SYSCTL!r}).read() == before
        assert info["driver"] == "epoll", info
        assert "io_uring denied" in info["driver_reason"], info
        assert "driver=epoll" in repr(loop)
        loop.run_until_complete(work())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        """,
        AIOXIDE_DRIVER="auto",
    )
