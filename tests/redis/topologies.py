"""Redis servers in groups: a master with replicas watched by sentinels, and a cluster, as real processes.

They live in a temporary folder on ports that were free, and can be killed; `heal` starts again what was
killed and waits until the group is whole. Everything here blocks: it is called before a test begins or after
it, or is as short as a kill.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

SERVICE = "themaster"
DOWN_AFTER = 1.0
"""Seconds of silence after which sentinels, or the nodes of a cluster, take a server for dead."""

_PATIENCE = 60.0

requires_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="there is no redis-server here"
)


@pytest.fixture
def only_native(is_aioxide: bool) -> None:
    """Skip what is promised on aioxide's loops only: on others it is all redis-py's, failovers among it."""
    if not is_aioxide:
        pytest.skip("redis-py itself recovers in its own way")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Wait until something holds that the servers bring about by themselves."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError, OSError):
            if is_so():
                return
        time.sleep(0.02)
    raise TimeoutError(f"waited {_PATIENCE} s in vain until {what}")


class Server:
    """A process of redis-server."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self.port = port
        self._folder = folder / str(port)
        self._folder.mkdir()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Server {self.port}>"

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return ("127.0.0.1", self.port)

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not killed since."""
        return self._process is not None

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers."""
        if self._process is None:
            command = ["redis-server", *self._options, "--port", str(self.port), "--bind", "127.0.0.1"]
            command += ["--dir", str(self._folder), "--save", "", "--appendonly", "no"]
            with open(self._folder / "log", "ab") as log:
                self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(lambda: bool(self.ask("PING")), f"port {self.port} answers")

    def kill(self) -> None:
        """Have it die at once, as with kill -9."""
        if self._process is not None:
            process, self._process = self._process, None
            process.send_signal(signal.SIGKILL)
            process.wait()

    def pause(self) -> None:
        """Have it do nothing any more, until it is killed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def ask(self, *command: Any) -> Any:
        """Run a command there, on a connection of its own; texts are decoded."""
        with redis.Redis(
            port=self.port, decode_responses=True, socket_timeout=5, protocol=2, retry=None
        ) as client:
            if "SENTINEL" not in command[0]:
                client.response_callbacks.clear()
            return client.execute_command(*command)


class Replicated:
    """A master, two replicas and three sentinels."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(6)
        fast = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--loglevel", "notice")
        self.servers = [Server(folder, port, *fast) for port in ports[:3]]
        self.servers[0].start()
        for server in self.servers[1:]:
            server.start()
            server.ask("REPLICAOF", "127.0.0.1", ports[0])
        self.sentinels = []
        for port in ports[3:]:
            configuration = folder / f"sentinel-{port}.conf"
            configuration.write_text(
                f"sentinel monitor {SERVICE} 127.0.0.1 {ports[0]} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {int(DOWN_AFTER * 1000)}\n"
                f"sentinel failover-timeout {SERVICE} 2000\n"
            )
            self.sentinels.append(Server(folder, port, str(configuration), "--sentinel"))
        for sentinel in self.sentinels:
            sentinel.start()
            sentinel.ask("SENTINEL DEBUG", "INFO-PERIOD", 500, "PUBLISH-PERIOD", 500)

    @property
    def master(self) -> Server:
        """The server that the sentinels call the master."""
        port = int(self.ask_sentinels("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)[1])
        return next(server for server in self.servers if server.port == port)

    @property
    def replicas(self) -> list[Server]:
        """The other servers."""
        master = self.master
        return [server for server in self.servers if server is not master]

    def ask_sentinels(self, *command: Any) -> Any:
        """Ask the first sentinel that runs."""
        return next(sentinel for sentinel in self.sentinels if sentinel.is_running).ask(*command)

    def heal(self) -> None:
        """Start what was killed, and wait until every sentinel sees a master with two replicas."""
        for server in [*self.sentinels, *self.servers]:
            server.start()
        # The sentinels would do it by themselves, after ten seconds.
        wait_until(lambda: self.master.ask("ROLE")[0] == "master", "there is a master")
        for server in self.replicas:
            server.ask("REPLICAOF", *self.master.address)
        wait_until(self._is_whole, "master, replicas and sentinels see each other")

    def _is_whole(self) -> bool:
        for sentinel in self.sentinels:
            state = sentinel.ask("SENTINEL MASTER", SERVICE)
            flags = [replica["flags"] for replica in sentinel.ask("SENTINEL SLAVES", SERVICE)]
            is_master = state["flags"] == "master" and int(state["port"]) == self.master.port
            if not is_master or int(state["num-other-sentinels"]) != 2 or flags != ["slave", "slave"]:
                return False
        roles = [server.ask("ROLE") for server in self.replicas]
        return all(role[0] == "slave" and role[3] == "connected" for role in roles)

    def stop(self) -> None:
        """Kill everything."""
        for server in [*self.sentinels, *self.servers]:
            server.kill()


class Cluster:
    """Three masters with a replica each."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(12)
        self.servers = [
            Server(
                folder,
                port,
                *("--cluster-enabled", "yes", "--cluster-port", str(bus)),
                *("--cluster-node-timeout", str(int(DOWN_AFTER * 1000))),
                *("--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"),
            )
            for port, bus in zip(ports[:6], ports[6:], strict=True)
        ]
        for server in self.servers:
            server.start()
        addresses = [f"127.0.0.1:{server.port}" for server in self.servers]
        create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
        subprocess.run(create, check=True, capture_output=True, timeout=_PATIENCE)
        self.heal()

    @property
    def address(self) -> tuple[str, int]:
        """Where one of the nodes that run listens."""
        return next(server.address for server in self.servers if server.is_running)

    def node(self, port: int) -> Server:
        """Return the node at a port."""
        return next(server for server in self.servers if server.port == port)

    def slots(self) -> list[tuple[range, Server, list[Server]]]:
        """Return who has which slots: the range, its master and the replicas."""
        answer = next(server for server in self.servers if server.is_running).ask("CLUSTER SLOTS")
        ranges = []
        for first, last, *nodes in answer:
            master, *replicas = [self.node(node[1]) for node in nodes]
            ranges.append((range(first, last + 1), master, replicas))
        return ranges

    def master_of(self, slot: int) -> Server:
        """Return the master that has a slot."""
        return next(master for slots, master, _ in self.slots() if slot in slots)

    def masters(self) -> list[Server]:
        """Return all masters."""
        return list(dict.fromkeys(master for _, master, _ in self.slots()))

    def begin_migration(self, slot: int, target: Server) -> None:
        """Have a slot move to another master: from now on the one says ASK for keys that it has not."""
        source = self.master_of(slot)
        target.ask("CLUSTER SETSLOT", slot, "IMPORTING", source.ask("CLUSTER MYID"))
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", target.ask("CLUSTER MYID"))

    def move_keys(self, slot: int, target: Server) -> None:
        """Move what is in the slot."""
        source = self.master_of(slot)
        while keys := source.ask("CLUSTER GETKEYSINSLOT", slot, 100):
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def end_migration(self, slot: int, target: Server) -> None:
        """Give a slot to another master, whichever had it."""
        identity = target.ask("CLUSTER MYID")
        for master in sorted(self.masters(), key=lambda master: master is not target):
            master.ask("CLUSTER SETSLOT", slot, "NODE", identity)

    def heal(self) -> None:
        """Start what was killed, and wait until all nodes see the same cluster, whole."""
        for server in self.servers:
            server.start()
        wait_until(self._is_whole, "the nodes of the cluster agree")

    def _is_whole(self) -> bool:
        views = []
        for server in self.servers:
            if "cluster_state:ok" not in str(server.ask("CLUSTER INFO")):
                return False
            if (role := server.ask("ROLE"))[0] == "slave" and role[3] != "connected":
                return False
            slots = server.ask("CLUSTER SLOTS")
            views.append(sorted((first, last, nodes[0][1], len(nodes)) for first, last, *nodes in slots))
        is_agreed = all(view == views[0] for view in views)
        masters = {port for _, _, port, _ in views[0]}
        return is_agreed and len(masters) == 3 and all(count == 2 for *_, count in views[0])

    def stop(self) -> None:
        """Kill everything."""
        for server in self.servers:
            server.kill()


@pytest.fixture(scope="session")
def started_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    """A replicated group for the whole session."""
    group = Replicated(tmp_path_factory.mktemp("sentinel"))
    yield group
    group.stop()


@pytest.fixture
def group(started_group: Replicated) -> Replicated:
    """The replicated group, whole; what a test kills comes back for the next one."""
    started_group.heal()
    return started_group


@pytest.fixture(scope="session")
def started_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for the whole session."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(started_cluster: Cluster) -> Cluster:
    """The cluster, whole; what a test kills comes back for the next one."""
    started_cluster.heal()
    return started_cluster
