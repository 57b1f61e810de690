"""`python -m aioxide worker`: processes are killed, servers are killed, and no event is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import temporary_directory

redis = pytest.importorskip("redis", reason="redis-py cannot be had for this Python")
worker_storm = pytest.importorskip("worker_storm")
children_of, storm, supervised, wait_until = (
    worker_storm.children_of,
    worker_storm.storm,
    worker_storm.supervised,
    worker_storm.wait_until,
)
PATIENCE = worker_storm.PATIENCE


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        client.flushall()
        yield client


def add(client: redis.Redis, numbers: range) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for number in numbers:
            pipeline.xadd("events", {"number": number})
        pipeline.execute()


def test_ten_killed_processes_lose_no_event(url: str) -> None:
    outcome = storm(url, kills=10, events=600, processes=3, options=["--max-deliveries", "0"], seed=7)
    assert outcome.lost == []
    assert (outcome.kills, outcome.dead_letters, outcome.pending) == (10, 0, 0)


def test_an_event_that_kills_its_process_is_given_up_and_the_others_are_not(
    client: redis.Redis, url: str
) -> None:
    handler = (
        "import os, asyncio, redis\n"
        "from redis.asyncio import Redis\n"
        "async def handle(event):\n"
        "    if event.fields['number'] == '13':\n"
        "        await asyncio.sleep(0.02)\n"
        "        os.kill(os.getpid(), 9)\n"
        "    await asyncio.sleep(0.05)\n"
        "    async with Redis.from_url(os.environ['STORM_URL']) as client:\n"
        "        await client.hincrby('done', event.fields['number'])\n"
    )
    add(client, range(60))
    options = ["--restart-delay", "0.05", "--claim-idle", "1", "--max-deliveries", "4"]
    with temporary_directory("handler") as folder:
        (folder / "deadly.py").write_text(handler)
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "environ", environment)
            with supervised(url, *options, handler="deadly:handle", factory=False):
                wait_until(lambda: client.xlen("events:dead"))
                wait_until(lambda: client.hlen("done") == 59)
    [(_, dead)] = client.xrange("events:dead")
    assert dead["number"] == "13"
    assert dead["dead-letter-deliveries"] == "4"


class Restartable:
    """A redis-server that keeps every write, and can be killed and started again on its port."""

    def __init__(self, directory: Path, port: int) -> None:
        self._command = [
            shutil.which("redis-server") or "redis-server",
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
        ]
        self.url = f"redis://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

        def answers() -> bool:
            with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
            return False

        wait_until(answers)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


def test_a_server_killed_in_the_middle_loses_no_event(unused_port_number: int) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server: tools/prepare_redis.sh installs it")
    with temporary_directory("redis") as directory:
        server = Restartable(directory, unused_port_number)
        server.start()
        try:
            options = ["--processes", "2", "--claim-idle", "2", "--max-deliveries", "0"]
            with supervised(server.url, *options) as supervisor:
                added = 0
                for _ in range(4):
                    with redis.Redis.from_url(server.url, decode_responses=True) as client:
                        wait_until(lambda: client.scard("ready") == 2)
                        add(client, range(added, added + 150))
                        added += 150
                        # Killed while much is under way.
                        wait_until(lambda enough=added - 120: client.hlen("done") > enough)
                    server.kill()
                    server.start()
                with redis.Redis.from_url(server.url, decode_responses=True) as client:

                    def is_settled() -> bool:
                        [group] = client.xinfo_groups("events")
                        return bool(group["pending"] == 0 and group["lag"] == 0)

                    wait_until(is_settled)
                    assert {int(number) for number in client.hkeys("done")} == set(range(added))
                    assert client.xlen("events:dead") == 0
                    # The processes lived through it.
                    assert client.scard("ready") == 2
                supervisor.terminate()
                assert supervisor.wait(PATIENCE) == 0
        finally:
            server.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_everything_when_running_calls_have_ended(
    client: redis.Redis, url: str, number: signal.Signals, code: int
) -> None:
    with supervised(url, "--processes", "2", "--concurrency", "2", seconds=0.8) as supervisor:
        wait_until(lambda: client.scard("ready") == 2)
        add(client, range(100))
        wait_until(lambda: client.hlen("begun") >= 4)
        supervisor.send_signal(number)
        assert supervisor.wait(PATIENCE) == code
        assert children_of(supervisor.pid) == []
    # What was begun was ended, and nothing else was begun; nobody has to wait for what was not.
    assert client.hgetall("begun") == client.hgetall("done")
    assert len(client.hgetall("done")) < 100
    left = client.xpending_range("events", "group", "-", "+", 100)
    assert all(one["times_delivered"] == 0 for one in left)


def test_a_second_signal_cancels_the_calls(client: redis.Redis, url: str) -> None:
    with supervised(url, handler="storm:slow", seconds=3600, factory=False) as supervisor:
        add(client, range(1))
        wait_until(lambda: client.xinfo_groups("events") and client.xpending("events", "group")["pending"])
        supervisor.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            supervisor.wait(0.5)
        supervisor.terminate()
        assert supervisor.wait(PATIENCE) == 0
    assert client.xpending("events", "group")["pending"] == 1


def test_processes_end_properly_when_their_supervisor_is_killed(client: redis.Redis, url: str) -> None:
    with supervised(url, "--processes", "2", seconds=0.3) as supervisor:
        wait_until(lambda: client.scard("ready") == 2)
        add(client, range(10))
        wait_until(lambda: client.hlen("begun") > 0)
        watched = [os.pidfd_open(pid) for pid in children_of(supervisor.pid)]
        supervisor.kill()
        for descriptor in watched:
            with os.fdopen(descriptor):
                wait_until(lambda: _has_ended(descriptor))  # noqa: B023
    assert client.hgetall("begun") == client.hgetall("done")


def _has_ended(descriptor: int) -> bool:
    import select

    return bool(select.select([descriptor], [], [], 0)[0])


def test_what_a_suspended_process_held_is_taken_over_and_it_goes_on_afterwards(
    client: redis.Redis, url: str
) -> None:
    options = ["--processes", "2", "--claim-idle", "1", "--concurrency", "4", "--max-deliveries", "0"]
    with supervised(url, *options, seconds=0.2) as supervisor:
        wait_until(lambda: client.scard("ready") == 2)
        add(client, range(20))
        wait_until(lambda: client.hlen("begun") >= 4)
        suspended = children_of(supervisor.pid)[0]
        os.kill(suspended, signal.SIGSTOP)
        wait_until(lambda: client.hlen("done") == 20)
        wait_until(lambda: client.xpending("events", "group")["pending"] == 0)
        os.kill(suspended, signal.SIGCONT)
        add(client, range(20, 40))
        wait_until(lambda: client.hlen("done") == 40)
        supervisor.terminate()
        assert supervisor.wait(PATIENCE) == 0
    assert {int(number) for number in client.hkeys("done")} == set(range(40))
    assert client.xpending("events", "group")["pending"] == 0
    assert client.xlen("events:dead") == 0


def test_names_are_found_again_and_never_shared(client: redis.Redis, url: str) -> None:
    with supervised(url, "--processes", "2", "--name", "here") as first:
        wait_until(lambda: client.smembers("names") == {"here-0", "here-1"})
        client.delete("names")
        folder = os.readlink(f"/proc/{first.pid}/cwd")
        with pytest.MonkeyPatch.context() as patch:
            # The same directory for temporary files, as on one machine.
            patch.setattr("worker_storm.temporary_directory", lambda _: contextlib.nullcontext(Path(folder)))
            with supervised(url, "--processes", "1", "--name", "here") as second:
                wait_until(lambda: client.smembers("names") == {"here-2"})
                second.terminate()
                assert second.wait(PATIENCE) == 0
            client.delete("names", "ready")
            [victim, *_] = children_of(first.pid)
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: client.smembers("names") <= {"here-0", "here-1"} and client.exists("names"))


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        ("storm:nothing", "module 'storm' has no 'nothing'"),
        ("nowhere:handle", "there is no module 'nowhere'"),
        ("storm:HANDLER.upper", "has no 'HANDLER.upper'"),
        ("os:sep", "os:sep is no function"),
        ("os:fspath", "the handler is no coroutine function"),
    ],
)
def test_a_wrong_handler_is_one_line_and_code_two(
    client: redis.Redis, url: str, handler: str, says: str
) -> None:
    add(client, range(1))
    with temporary_directory("worker") as folder:
        (folder / "storm.py").write_text("async def handle(event): pass\n")
        line = [sys.executable, "-m", "aioxide", "worker", handler, "--stream", "events", "--group", "group"]
        if handler == "os:fspath":
            (folder / "plain.py").write_text("def handle(event): return None\n")
            line[4] = "plain:handle"
        finished = subprocess.run(
            [*line, "--url", url, "--log-level", "error"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert finished.returncode == 2
    assert says in finished.stderr
    assert finished.stderr.count("\n") == 1, finished.stderr
    assert client.xlen("events:dead") == 0


@pytest.mark.parametrize(
    "options",
    [
        ["storm"],
        ["storm:handle", "--stream", "s"],
        ["storm:handle", "--stream", "s", "--group", "g", "--processes", "0"],
        ["storm:handle", "--stream", "s", "--group", "g", "--url", "http://here"],
        ["storm:handle", "--stream", "s", "--group", "g", "--batch", "2", "--max-deliveries", "1"],
    ],
)
def test_a_wrong_option_is_code_two(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "storm.py").write_text("async def handle(event): pass\n")
    line = [sys.executable, "-m", "aioxide", "worker", *options]
    finished = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr


def test_help_shows_a_complete_command() -> None:
    line = [sys.executable, "-m", "aioxide", "worker", "--help"]
    finished = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert "--stream orders --group billing --processes 4" in finished.stdout


def test_a_process_that_cannot_start_is_tried_again_ever_more_slowly(
    client: redis.Redis, url: str, tmp_path: Path
) -> None:
    tried = tmp_path / "tried"
    broken = f"import time; open({str(tried)!r}, 'a').write(f'{{time.monotonic()}}\\n'); raise RuntimeError"
    (tmp_path / "broken.py").write_text(broken)
    line = [sys.executable, "-m", "aioxide", "worker", "broken:handle", "--stream", "events", "--group", "g"]
    with subprocess.Popen(
        [*line, "--url", url, "--restart-delay", "0.1"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: tried.exists() and len(tried.read_text().splitlines()) == 5)
        begun = time.monotonic()
        process.terminate()
        assert process.wait(PATIENCE) == 0
        assert time.monotonic() - begun < 10
    times = [float(line) for line in tried.read_text().splitlines()]
    assert times[4] - times[3] > times[1] - times[0]
    assert times[4] - times[3] >= 0.4
