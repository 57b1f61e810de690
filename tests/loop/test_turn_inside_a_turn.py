"""A loop that is asked to run inside one of its own callbacks."""

from __future__ import annotations

import pytest


async def test_a_turn_inside_a_turn_is_refused_and_the_loop_goes_on(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio's private _run_once() does not look")
    with pytest.raises(RuntimeError, match="already running"):
        loop._run_once()
    done = loop.create_future()
    loop.call_later(0.001, done.set_result, "went on")
    assert await done == "went on"
