"""All commands as methods, by the chapters of Redis' documentation. Each sends its words through `send`."""

from __future__ import annotations

from .hashes import HashCommands
from .keys import KeyCommands
from .lists import ListCommands
from .server import ServerCommands
from .sets import SetCommands
from .sorted_sets import SortedSetCommands
from .streams import StreamCommands
from .strings import StringCommands


class Commands(
    HashCommands,
    KeyCommands,
    ListCommands,
    ServerCommands,
    SetCommands,
    SortedSetCommands,
    StreamCommands,
    StringCommands,
):
    """Everything."""
