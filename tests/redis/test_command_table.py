"""docs/redis-commands.md is what its script would write, and no command that blocks shares a connection."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
import redis.asyncio

SCRIPT = Path(__file__).resolve().parents[2] / "tools/redis_commands.py"
WAITS_FOR_OTHERS = {"timeout", "block"}
WAITS_FOR_NOBODY = {"client_pause", "failover", "lock", "migrate"}
"""Methods with such a parameter that the server answers without waiting for what others do."""


@pytest.fixture(scope="module")
def table() -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("redis_commands", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(table: ModuleType) -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    version = re.search(r"redis-py (\d\S+)\. ", page)
    if version is None or version[1] != redis.__version__:
        pytest.skip(f"the page is for another redis-py than {redis.__version__}")
    assert page == table.page(), f"run python {SCRIPT}"


def test_what_blocks_in_the_server_shares_no_connection(table: ModuleType) -> None:
    waiting = []
    for _, name, commands, is_there in table.methods():
        parameters = inspect.signature(getattr(redis.asyncio.Redis, name)).parameters
        if is_there and WAITS_FOR_OTHERS & parameters.keys() and name not in WAITS_FOR_NOBODY:
            waiting.append(name)
            assert {table.way_of(command) for command in commands} == {"own, native"}, name
    assert {"blpop", "bzmpop", "wait", "xread", "xreadgroup"} <= set(waiting)
