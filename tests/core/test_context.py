"""Who is writing is known to the tools of a turn, and only to them."""

from __future__ import annotations

import asyncio
import threading

from botsrt.core.context import SessionContext, clear_session_context, get_session_context, set_session_context


def test_outside_a_turn_every_field_is_empty():
    assert get_session_context() == SessionContext()
    assert get_session_context().user_id == ""


def test_a_token_restores_what_was_current_before():
    outer = set_session_context(SessionContext(user_id="outer"))
    inner = set_session_context(SessionContext(user_id="inner"))
    assert get_session_context().user_id == "inner"
    clear_session_context(inner)
    assert get_session_context().user_id == "outer"
    clear_session_context(outer)
    assert get_session_context() == SessionContext()


async def test_concurrent_turns_never_see_each_other():
    both_are_set = asyncio.Barrier(2)

    async def turn(user_id: str) -> tuple[str, str]:
        token = set_session_context(SessionContext(user_id=user_id))
        try:
            await both_are_set.wait()
            own = get_session_context().user_id
            in_thread = await asyncio.to_thread(lambda: get_session_context().user_id)
            return own, in_thread
        finally:
            clear_session_context(token)

    assert list(await asyncio.gather(turn("a"), turn("b"))) == [("a", "a"), ("b", "b")]
    assert get_session_context() == SessionContext()


def test_another_thread_starts_with_an_empty_context():
    token = set_session_context(SessionContext(user_id="a"))
    seen = []
    thread = threading.Thread(target=lambda: seen.append(get_session_context()))
    thread.start()
    thread.join()
    clear_session_context(token)
    assert seen == [SessionContext()]
