"""Ctrl-C, with asyncio.Runner and without, whatever the loop is doing."""

from __future__ import annotations

import pytest
from programs import run_program

PRESS = """
def press(signum=signal.SIGINT):
    os.kill(os.getpid(), signum)
def run_main():
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())
def run_main_interrupted():
    try:
        run_main()
    except KeyboardInterrupt:
        print("interrupted")
"""


def run_pressing(loop_name, body):
    """Run `body` in a process where `press` presses Ctrl-C and `run_main` runs its `main`."""
    return run_program(loop_name, PRESS + body)


@pytest.mark.parametrize(
    "activity",
    [
        "asyncio.sleep(100)",
        "loop.create_future()",
        "asyncio.to_thread(gate.wait)",
        "loop.sock_recv(near, 1)",
        "loop.sock_accept(listener)",
        "(await asyncio.create_subprocess_exec('sleep', '10', **quiet)).wait()",
        "(await asyncio.start_server(print, '127.0.0.1', 0)).serve_forever()",
        "asyncio.gather(spin(), spin(), asyncio.sleep(100))",
        "asyncio.wait_for(asyncio.Event().wait(), 100)",
    ],
)
def test_it_cancels_whatever_the_main_task_awaits(loop_name, loop_factory, activity):
    done = run_pressing(
        loop_name,
        f"""
import socket
gate = threading.Event()
quiet = dict(stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
async def spin():
    while True:
        await asyncio.sleep(0)
async def main():
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    near.setblocking(False)
    listener.setblocking(False)
    loop.call_later(0.05, press)
    try:
        await {activity}
    except asyncio.CancelledError:
        print("cancelled")
        raise
    finally:
        gate.set()
run_main_interrupted()
""",
    )
    assert done.stdout.split() == ["cancelled", "interrupted"], done.stderr


def test_a_second_one_does_not_wait_for_the_main_task(loop_name, loop_factory):
    done = run_pressing(
        loop_name,
        """
async def main():
    loop = asyncio.get_running_loop()
    loop.call_soon(press)
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        print("refused")
        loop.call_later(0.01, press)
        await asyncio.sleep(100)
run_main_interrupted()
""",
    )
    assert done.stdout.split() == ["refused", "interrupted"], done.stderr


def test_a_main_task_that_survives_it_returns_its_result(loop_name, loop_factory):
    done = run_pressing(
        loop_name,
        """
async def main():
    asyncio.get_running_loop().call_soon(press)
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        asyncio.current_task().uncancel()
    return "survived"
with asyncio.Runner(loop_factory=factory) as runner:
    print(runner.run(main()))
    print(runner.run(asyncio.sleep(0.001, "again")))
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
""",
    )
    assert done.stdout.split() == ["survived", "again", "True"], done.stderr


def test_a_handler_of_the_program_is_left_in_place(loop_name, loop_factory):
    done = run_pressing(
        loop_name,
        """
pressed = threading.Event()
signal.signal(signal.SIGINT, lambda *_: pressed.set())
async def main():
    asyncio.get_running_loop().call_soon(press)
    while not pressed.is_set():
        await asyncio.sleep(0.001)
    return "handled"
print(run_main())
""",
    )
    assert done.stdout.split() == ["handled"], done.stderr


def test_the_loops_own_handler_of_sigint_wins(loop_name, loop_factory):
    done = run_pressing(
        loop_name,
        """
async def main():
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
        press(number)
        await stop.wait()
        stop.clear()
        print("stopped")
run_main()
""",
    )
    assert done.stdout.split() == ["stopped", "stopped"], done.stderr


def test_it_ends_a_main_thread_that_waits_for_a_loop_on_another(loop_name, loop_factory):
    done = run_pressing(
        loop_name,
        """
loop = factory()
thread = threading.Thread(target=loop.run_forever)
thread.start()
threading.Timer(0.05, press).start()
try:
    asyncio.run_coroutine_threadsafe(asyncio.sleep(100), loop).result(50)
except KeyboardInterrupt:
    print("interrupted", loop.is_running())
async def cancel_all():
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
asyncio.run_coroutine_threadsafe(cancel_all(), loop).result(50)
loop.call_soon_threadsafe(loop.stop)
thread.join()
loop.close()
""",
    )
    assert done.stdout.split() == ["interrupted", "True"], done.stderr
    assert done.returncode == 0, done.stderr


def test_it_does_not_reach_into_callbacks_of_rust_transports(loop_name, loop_factory):
    """A protocol that is interrupted loses the exception to nobody: it ends the loop."""
    done = run_pressing(
        loop_name,
        """
import socket
class Protocol(asyncio.Protocol):
    def data_received(self, data):
        press()
        time.sleep(10)
async def main():
    near, far = socket.socketpair()
    near.setblocking(False)
    await asyncio.get_running_loop().connect_accepted_socket(Protocol, near)
    far.send(b"x")
    await asyncio.sleep(100)
loop = factory()
try:
    loop.run_until_complete(main())
except KeyboardInterrupt:
    print("interrupted")
for task in asyncio.all_tasks(loop):
    task.cancel()
loop.run_until_complete(asyncio.sleep(0.001))
loop.close()
print("closed")
""",
    )
    assert done.stdout.split() == ["interrupted", "closed"], done.stderr


def test_a_program_that_is_interrupted_exits_as_one(loop_name, loop_factory):
    done = run_pressing(
        loop_name,
        """
async def main():
    asyncio.get_running_loop().call_soon(press)
    await asyncio.sleep(100)
run_main()
""",
    )
    assert done.returncode == -2
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
