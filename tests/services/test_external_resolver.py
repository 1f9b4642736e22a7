"""A resolver outside the tables: lanes follow what it says, and acts of staff go to it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from botsrt.core.errors import Conflict, NotFound
from botsrt.core.states import Proof, TurnState
from botsrt.models import BotSession, IdentityLink, Turn
from botsrt.services import identity, materials, persons, sessions
from botsrt.services.claimed import ClaimedTurn
from botsrt.services.identity import DatabaseIdentityResolver
from botsrt.services.materials import Materials
from botsrt.services.resolvers import FileIdentityResolver, InMemoryIdentityResolver
from tests.factories import ALICE, NOW, a_bot, a_message, answered, claim_one, finish, later, received

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _bots(transactional_db: None) -> None:
    a_bot()
    a_bot("desk", platform="slack")


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> InMemoryIdentityResolver:
    kept = InMemoryIdentityResolver()
    monkeypatch.setattr(identity, "external", lambda: kept)
    return kept


def on_slack(text: str = "And here?"):
    return a_message(text, platform="slack", account="desk", user_id="U1", channel_id="D1")


def read(turn: ClaimedTurn) -> Materials:
    return materials.gather(turn=turn, max_history=100, refused_for=timedelta(days=1), now=later(seconds=5))


def lanes() -> dict[str, str]:
    return dict(BotSession.objects.values_list("session_id", "lane"))


def link(platform: str, user_id: str, person: str = "alice") -> None:
    identity.link(
        platform=platform,
        user_id=user_id,
        unified_user_id=person,
        proof=Proof.STAFF,
        actor=ALICE,
        reason="one human",
        now=NOW,
    )


def test_what_the_resolver_says_joins_conversations_with_the_next_message(resolver):
    answered("Hello", "Hi")
    answered(on_slack(), "Here too.")
    assert lanes() == {"bot_web_user-1": "bot_web_user-1", "bot_slack_U1": "bot_slack_U1"}
    resolver.link("web", "user-1", "alice")
    resolver.link("slack", "U1", "alice")
    received("More")
    received(on_slack("More here"))
    assert set(lanes().values()) == {"person:alice"}
    turn = claim_one(now=later(seconds=1))
    found = read(turn)
    assert [item.text for item in found.history] == ["Hello", "Hi", "And here?", "Here too."]
    assert set(found.persons.values()) == {"alice"}
    assert not IdentityLink.objects.exists()


def test_a_link_that_the_resolver_ended_is_noticed_before_anything_is_read(resolver):
    for platform, user_id in (("web", "user-1"), ("slack", "U1")):
        resolver.link(platform, user_id, "alice")
    answered("Hello", "Hi")
    received(on_slack())
    turn = claim_one(now=later(seconds=1))
    assert turn.lane == "person:alice"
    resolver.unlink("slack", "U1")
    found = read(turn)
    assert found.history == ()
    assert Turn.objects.get(pk=turn.id).state == TurnState.CANCELLED
    assert not finish(turn, "what Alice said elsewhere")
    again = claim_one(now=later(seconds=9))
    assert again.lane == "bot_slack_U1"
    assert read(again).history == ()


def test_acts_of_staff_go_to_the_resolver(resolver):
    answered("Hello")
    link("web", "user-1")
    assert resolver.resolve("web", "user-1") == "alice"
    assert lanes() == {"bot_web_user-1": "person:alice"}
    assert identity.all_links() == {("web", "user-1"): "alice"}
    assert identity.unlink(platform="web", user_id="user-1", actor=ALICE, now=NOW) == "alice"
    assert lanes() == {"bot_web_user-1": "bot_web_user-1"}
    with pytest.raises(Conflict, match="InMemoryIdentityResolver"):
        persons.merge(loser="a", winner="b", actor=ALICE, reason="x", now=NOW)


def test_new_begins_the_whole_conversation_anew(resolver):
    resolver.link("web", "user-1", "alice")
    resolver.link("slack", "U1", "alice")
    answered("Hello")
    answered(on_slack())
    turn = claim_one(now=later(seconds=1)) if received("/new") else None
    assert turn is not None
    session = BotSession.objects.select_related("contact").get(session_id="bot_web_user-1")
    sessions.start_new(session=session, turn_id=turn.id, now=NOW)
    for pk in BotSession.objects.values_list("pk", flat=True):
        assert sessions.history(session_pk=pk, max_messages=10) == ()


def test_a_resolver_that_only_resolves_and_links_says_what_it_cannot_do(monkeypatch):
    class Minimal:
        def resolve(self, platform: str, platform_user_id: str) -> str:
            return "alice" if platform_user_id == "user-1" else ""

        def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
            raise NotImplementedError

    monkeypatch.setattr(identity, "external", Minimal)
    answered("Hello")
    assert lanes() == {"bot_web_user-1": "person:alice"}
    with pytest.raises(Conflict, match="Minimal, which cannot end them"):
        identity.unlink(platform="web", user_id="user-1", actor=ALICE, now=NOW)
    with pytest.raises(Conflict, match="Minimal, which cannot list them"):
        identity.all_links()


def test_links_move_between_resolvers(tmp_path: Path):
    link("web", "user-1")
    kept = FileIdentityResolver(path=tmp_path / "identity.json")
    kept.link_many(identity.all_links())
    identity.unlink(platform="web", user_id="user-1", actor=ALICE, now=NOW)
    made, problems = identity.import_links(links=kept.all_links(), actor=ALICE, reason="import", now=NOW)
    assert (made, problems) == (1, [])
    assert IdentityLink.objects.get(unlinked_at=None).proof == Proof.IMPORT


def test_the_tables_have_the_face_of_a_resolver():
    tables = DatabaseIdentityResolver()
    assert tables.resolve("web", "user-1") == "web:user-1"
    tables.link("web", "user-1", "alice")
    tables.link("web", "user-1", "bob")  # instead of the one before, as in the documents
    assert tables.resolve("web", "user-1") == "bob"
    assert tables.links_for("bob") == [("web", "user-1")]
    assert tables.unlink("web", "user-1")
    assert not tables.unlink("web", "user-1")
    with pytest.raises(NotFound):
        identity.unlink(platform="web", user_id="user-1", actor=ALICE, now=NOW)
