"""Write docs/redis-commands.md: every command method of redis-py's, and the way it takes in aioxide.redis.

    python tools/redis_commands.py

The methods, and the commands that each sends, are read from the sources of the redis-py that is installed;
the way is asked of aioxide, by the function that the client asks. Only the remarks are kept by hand, below.
tests/redis/test_command_table.py fails where the page is not what this would write.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis.asyncio
from aioxide._rust import _redis_route

PAGE = Path(__file__).resolve().parent.parent / "docs/redis-commands.md"

HEAD = """\
# Redis, command by command

Written by `tools/redis_commands.py` for redis-py {version}. Arguments, defaults, the shapes of replies and
the exceptions are redis-py's for every command. What a command *goes over* is:

- **shared**: the client's native connection, with everybody else's commands;
- **own, native**: a native connection of its own while it waits in the server, `max_connections` at most;
- **redis-py's**: a connection of redis-py's pool, because the command changes what a connection is.

`execute_command` takes any command there is, also one that is not here: it goes over the shared connection.
In a cluster a command with one key goes straight to its node's shared connection, and all others to where
redis-py sends them ([topologies](redis-topologies.md)). Modules' clients send by `execute_command`.
"""

GROUPS = {
    "BasicKeyCommands": "Keys and strings",
    "HashCommands": "Hashes",
    "ListCommands": "Lists",
    "SetCommands": "Sets",
    "SortedSetCommands": "Sorted sets",
    "StreamCommands": "Streams",
    "ScanCommands": "Scanning",
    "HyperlogCommands": "HyperLogLog",
    "GeoCommands": "Geo",
    "ArrayCommands": "Arrays",
    "ScriptCommands": "Scripts",
    "FunctionCommands": "Functions",
    "PubSubCommands": "Publishing",
    "ManagementCommands": "Server and connection",
    "ACLCommands": "Access control",
    "ClusterCommands": "Cluster",
    "SentinelCommands": "Sentinel",
    "ModuleCommands": "Modules",
    "RedisModuleCommands": "Clients of modules",
    "Redis": "The client's own",
}
"""redis-py's classes of commands in the order of the page, without the `Async` that some are derived with."""

WAYS = {"shared": "shared", "blocking": "own, native", "own": "redis-py's"}

REMARKS = {
    "WAIT": "counts its own connection's writes, and there are none: put it into their pipeline",
    "WAITAOF": "as `WAIT`",
    "XREAD": "shared without `block`",
    "XREADGROUP": "shared without `block`",
    "CLIENT": "concerns a connection of redis-py's pool, not the shared one",
    "SELECT": "changes one connection of redis-py's pool; give the client `db=` instead",
    "AUTH": "changes one connection of redis-py's pool; give the client `username=`, `password=` instead",
    "READONLY": "changes one connection of redis-py's pool; the cluster client says it by itself",
    "READWRITE": "as `READONLY`",
    "RESET": "resets one connection of redis-py's pool",
    "HELLO": "changes one connection of redis-py's pool; give the client `protocol=` instead",
    "pipeline": "one write over the shared connection; after `watch()` over redis-py's",
    "transaction": "over redis-py's: it watches",
    "pubsub": "subscriptions have a connection of redis-py's each",
    "monitor": "has a connection of redis-py's",
    "client": "a client of one connection, which is redis-py's",
    "aclose": "callers that wait for a reply get a `ConnectionError`",
    "close": "as `aclose`",
}
"""What differs, by command, by the first word of one, or by method."""

NO_COMMANDS = frozenset({"get_encoder", "set_retry", "get_retry", "get_connection_kwargs", "auto_close"})
"""Methods that neither send anything nor make what does."""

NAMESAKES = frozenset(
    """
    BITFIELD EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO GEORADIUS GEORADIUSBYMEMBER GEOSEARCH
    GEOSEARCHSTORE SORT_RO ZINTER ZINTERSTORE ZRANGE ZRANGESTORE ZUNION ZUNIONSTORE WATCH UNWATCH
    """.split()  # noqa: SIM905 - a table to read
)
"""Commands that a method of the same name sends by way of another one."""

INDIRECT = {
    **{f"{name}_iter": name.upper() for name in ("scan", "hscan", "sscan", "zscan")},
    **{f"client_tracking_{state}": "CLIENT TRACKING" for state in ("on", "off")},
    **{
        f"himport_{part}": f"HIMPORT {part.upper().replace('_', '')}"
        for part in ("prepare", "set", "discard")
    },
    "himport_discard_all": "HIMPORT DISCARDALL",
    "register_script": "EVALSHA",
}
"""The others that send by way of another method."""

SENT = re.compile(r"""execute_command\(\s*f?["']([A-Z][A-Z0-9. _-]*)""")
NAMED = re.compile(r"""["']([A-Z][A-Z0-9.]*(?:[ -][A-Z0-9]+)*)["']""")


def methods() -> Iterator[tuple[str, str, list[str], bool]]:
    """Yield the group, the name and the commands of every public method, in the order of the sources."""
    seen: set[str] = set()
    for owner in redis.asyncio.Redis.__mro__:
        group = GROUPS.get(owner.__name__.removeprefix("Async"))
        if group is None:
            continue
        for name, member in vars(owner).items():
            function = inspect.unwrap(getattr(member, "__func__", member))
            is_method = callable(function) and not name.startswith("_") and not name.endswith("_internal")
            if not is_method or name in seen or name in NO_COMMANDS:
                continue
            seen.add(name)
            is_there = "raise NotImplementedError" not in inspect.getsource(function)
            yield group, name, commands_of(name, owner, function), is_there


def commands_of(name: str, owner: type, function: Callable[..., Any]) -> list[str]:
    """Return the commands that the source of a method names."""
    # An asynchronous method may hand over to the one it overrides.
    sources = [inspect.getsource(function)]
    for base in owner.__mro__[1:]:
        if name in vars(base):
            sources.append(inspect.getsource(vars(base)[name]))
    for source in sources:
        body = re.sub(r'""".*?"""', "", source, flags=re.DOTALL)
        if sent := list(dict.fromkeys(command.strip() for command in SENT.findall(body))):
            return sent
        if "execute_command(" in body and (named := NAMED.findall(body)):
            return [next((text for text in named if letters(text) == letters(name)), named[0])]
    if name.upper() in NAMESAKES:
        return [name.upper()]
    return [INDIRECT[name]] if name in INDIRECT else []


def letters(text: str) -> str:
    """Return a name without what separates its words."""
    return re.sub("[^a-z0-9]", "", text.lower())


def way_of(command: str) -> str:
    """Return what a command goes over, at its most demanding."""
    return WAYS[_redis_route((command, "BLOCK", 0))]


def rows() -> dict[str, list[str]]:
    """Return the lines of the table of each group."""
    tables: dict[str, list[str]] = {title: [] for title in GROUPS.values()}
    for group, name, commands, is_there in methods():
        words = " ".join(command.partition(" ")[0] for command in commands).split()
        keys = (name, *commands, *words)
        remark = next((REMARKS[key] for key in keys if key in REMARKS), "same as redis-py")
        if not is_there:
            remark = "same as redis-py: `NotImplementedError`"
        ways = dict.fromkeys(way_of(command) for command in commands)
        texts = ", ".join(f"`{command}`" for command in commands)
        tables[group].append(f"| `{name}` | {texts or '-'} | {', '.join(ways) or '-'} | {remark} |")
    return tables


def page() -> str:
    """Return the page."""
    lines = HEAD.format(version=redis.__version__).splitlines()
    for title, table in rows().items():
        lines += ["", f"## {title}", "", "| method | command | goes over | differs |", "|---|---|---|---|"]
        lines += sorted(table)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
