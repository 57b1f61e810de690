"""A loop has no instance dictionary unless a program gives it attributes: its methods are found faster."""

from __future__ import annotations

import asyncio

import aioxide


def test_a_loop_that_ran_has_nothing_in_its_dictionary():
    loop = aioxide.new_event_loop()
    try:
        loop.run_until_complete(asyncio.sleep(0))
        assert vars(loop) == {}
    finally:
        loop.close()


def test_a_program_may_give_a_loop_attributes_and_replace_its_methods():
    class Counting(aioxide.EventLoop):
        scheduled = 0

        def call_soon(self, *arguments, **options):
            self.scheduled += 1
            return super().call_soon(*arguments, **options)

    loop = Counting()
    try:
        loop.label = "mine"
        loop.run_until_complete(asyncio.sleep(0))
        assert loop.label == "mine"
        assert loop.scheduled > 0
    finally:
        loop.close()
