"""``manage.py identity``: links made, shown, carried in files, and taken back."""

from __future__ import annotations

import json
import stat

import pytest

from botsrt.models import BotSession, IdentityLink
from botsrt.services import identity
from botsrt.services.resolvers import FileIdentityResolver
from tests.factories import a_bot, a_message, answered

pytestmark = pytest.mark.django_db(transaction=True)

LINK = ("identity", "link", "web", "user-1", "alice", "--reason", "she told me")


def lane() -> str:
    return BotSession.objects.get(session_id="bot_web_user-1").lane


def test_a_link_joins_and_unlink_restores(manage):
    a_bot()
    answered("Hello")
    assert manage(*LINK).out == "web:user-1 is alice now.\n"
    assert lane() == "person:alice"
    assert manage("identity", "unlink", "web", "user-1").out == "web:user-1 is not alice any more.\n"
    assert lane() == "bot_web_user-1"
    shown = manage("identity", "show", "alice", "--json").json
    assert shown["contacts"] == []
    assert [link["reason"] for link in shown["links"]] == ["she told me"]


def test_a_link_without_a_reason_or_with_a_bad_id_is_refused(manage):
    assert "reason" in manage("identity", "link", "web", "user-1", "alice").err
    ran = manage("identity", "link", "web", "user-1", "Alice!", "--reason", "x")
    assert ran.code == 1
    assert "person:" in ran.err
    assert not IdentityLink.objects.exists()


def test_a_second_link_says_which_one_holds(manage):
    manage(*LINK)
    ran = manage("identity", "link", "web", "user-1", "bob", "--reason", "x")
    assert ran.code == 1
    assert "is linked to alice since" in ran.err
    assert "identity unlink web user-1" in ran.err


def test_a_preview_counts_and_changes_nothing(manage):
    a_bot()
    answered("Hello")
    ran = manage("identity", "link", "web", "user-1", "alice", "--preview", "--json")
    assert ran.json["contact_messages"] == 2
    assert ran.json["person_messages"] == 0
    assert "the other way round 2" in manage("identity", "link", "web", "user-1", "alice", "--preview").out
    assert not IdentityLink.objects.exists()


def test_persons_are_merged_and_unmerged(manage):
    manage(*LINK)
    manage("identity", "link", "slack", "U1", "bob", "--reason", "x")
    merge = manage("identity", "merge", "bob", "alice", "--reason", "one human", "--json").json["merge"]
    assert manage("identity", "show", "alice", "--json").json["contacts"] == ["slack:U1", "web:user-1"]
    refused = manage("identity", "link", "web", "user-9", "bob", "--reason", "x")
    assert "bob was merged into alice" in refused.err
    assert manage("identity", "unmerge", str(merge)).code == 0
    assert manage("identity", "show", "bob", "--json").json["contacts"] == ["slack:U1"]
    assert "was undone already" in manage("identity", "unmerge", str(merge)).err


def test_an_alias_shares_the_lane_of_the_contact_that_it_is(manage):
    a_bot()
    answered("Hello")
    answered(a_message("Hello again", user_id="new-id"))
    alias = ("identity", "alias", "web", "new-id", "user-1", "--reason", "the platform renamed them")
    assert manage(*alias).code == 0
    assert BotSession.objects.get(session_id="bot_web_new-id").lane == "bot_web_user-1"
    assert "is an alias already" in manage(*alias).err
    assert manage("identity", "unalias", "web", "new-id").code == 0
    assert BotSession.objects.get(session_id="bot_web_new-id").lane == "bot_web_new-id"


def test_export_and_import_are_the_format_of_the_file_resolver(manage, tmp_path):
    manage(*LINK)
    manage("identity", "link", "slack", "U1", "alice", "--reason", "x")
    path = tmp_path / "identity.json"
    assert manage("identity", "export", str(path)).out == "2 links written.\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert FileIdentityResolver(path=path).resolve("slack", "U1") == "alice"
    assert manage("identity", "import", str(path)).out == "0 links made, 2 were there.\n"
    manage("identity", "unlink", "slack", "U1")
    assert manage("identity", "import", str(path), "--json").json == {"made": 1, "known": 1, "problems": []}


def test_an_import_makes_what_it_can_and_names_the_rest(manage, tmp_path):
    manage(*LINK)
    path = tmp_path / "identity.json"
    path.write_text(json.dumps({"links": {"web::user-1": "bob", "web::user-2": "bob"}}))
    ran = manage("identity", "import", str(path))
    assert ran.code == 1
    assert "web:user-1: " in ran.err
    assert identity.all_links() == {("web", "user-1"): "alice", ("web", "user-2"): "bob"}


@pytest.mark.parametrize("text", ["", "{", '{"links": []}', "\x00"])
def test_a_file_that_is_no_identity_file_is_refused(manage, tmp_path, text):
    path = tmp_path / "identity.json"
    path.write_text(text)
    assert manage("identity", "import", str(path)).code == 1
    assert manage("identity", "import", str(tmp_path / "none.json")).code == 1


def test_nobody_is_linked(manage):
    assert manage("identity", "list").out == "Nobody is linked.\n"
    assert manage("identity", "show", "nobody").code == 1
    assert manage("identity", "unlink", "web", "nobody").code == 1
