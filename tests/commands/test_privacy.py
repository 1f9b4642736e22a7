"""``manage.py identity data``, ``identity erase`` and ``retention``."""

from __future__ import annotations

import json

import pytest

from botsrt import conf, tasks
from botsrt.models import (
    AuditEvent,
    Bot,
    BulkItem,
    BulkOperation,
    Contact,
    HistoryMessage,
    JournalEntry,
    Pairing,
)
from botsrt.services import attachments, bulk, search
from tests.factories import ALICE, NOW, a_bot, a_group_message, a_message, answered, asks

pytestmark = pytest.mark.django_db(transaction=True)

HOSTILE = "</script><b>\u202e\x1b[31m=cmd"


@pytest.fixture(autouse=True)
def _ann() -> None:
    a_bot()
    answered(a_message("hello there", user_id="ann", display_name=HOSTILE))


def test_all_data_of_somebody_is_one_document(manage, tmp_path) -> None:
    answered(a_group_message("in a group", user_id="ann"))
    answered(a_group_message("of somebody else", user_id="bob"))
    contact = Contact.objects.get(platform_user_id="ann")
    attachments.keep(account="shop", contact_id=contact.pk, reference="r", digest="d" * 64, size_bytes=9, now=NOW)
    path = tmp_path / "ann.json"
    assert manage("identity", "data", "web:ann", str(path), "--reason", "asked").code == 0
    text = path.read_text(encoding="ascii")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "<" not in text
    assert "\x1b" not in text
    held = json.loads(text)
    assert held["about"] == ["web:ann"]
    assert [row["text"] for row in held["messages"]] == ["hello there", "Hi"]
    assert [row["text"] for row in held["messages_in_groups"]] == ["in a group"]
    assert len(held["journal"]) == 2
    assert [(row["account"], row["size_bytes"]) for row in held["files"]] == [("shop", 9)]
    assert held["contacts"][0]["display_name"] == HOSTILE
    assert "of somebody else" not in text
    assert AuditEvent.objects.filter(verb="identity.data", reason="asked").exists()


def test_the_document_has_no_hash_of_a_code(manage) -> None:
    Bot.objects.update(policy="pair")
    request = asks("stranger")
    held = json.loads(manage("identity", "data", "web:stranger", "-").out)
    assert held["pairings"][0]["first_words"] == "May I?"
    text = json.dumps(held["pairings"])
    assert request.code_hash not in text
    assert request.nonce not in text
    assert Pairing.objects.exists()


def test_erasing_takes_two_steps(manage) -> None:
    ran = manage("identity", "erase", "web:ann", "--json")
    assert (ran.code, ran.json["messages"], ran.json["entries"]) == (0, 2, 1)
    assert HistoryMessage.objects.count() == 2
    ran = manage("identity", "erase", "web:ann", "--confirm", "web:an")
    assert (ran.code, HistoryMessage.objects.count()) == (1, 2)
    ran = manage("identity", "erase", "web:ann", "--confirm", "web:ann", "--reason", "asked", "--vacuum")
    assert ran.code == 0
    assert not HistoryMessage.objects.exists()
    assert not Contact.objects.exists()
    assert JournalEntry.objects.get().kind == "erased"
    assert "nobody web:ann" in manage("identity", "erase", "web:ann").err


def test_who_is_not_wholly_erased_is_named_and_can_be_erased_again(manage, monkeypatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(search, "forget_deleted", lambda: 1 / 0)
        ran = manage("identity", "erase", "web:ann", "--confirm", "web:ann")
    contact = Contact.objects.get()
    assert (ran.code, ran.out) == (1, "")
    assert f"{contact}: An unexpected ZeroDivisionError" in ran.err
    assert BulkItem.objects.get().state == "skipped"
    ran = manage("identity", "erase", str(contact), "--confirm", str(contact))
    assert (ran.code, Contact.objects.exists()) == (0, False)


def test_an_operation_that_was_stopped_is_no_success(manage, monkeypatch) -> None:
    def stopped(operation_id: int) -> None:
        bulk.stop(operation_id=operation_id, actor=ALICE, now=NOW)

    monkeypatch.setattr(tasks, "finish_bulk", stopped)
    monkeypatch.setattr(tasks, "go_on", lambda operation_id: None)
    ran = manage("identity", "erase", "web:ann", "--confirm", "web:ann")
    operation = BulkOperation.objects.get()
    assert (ran.code, ran.out) == (1, "")
    assert f"was stopped by {ALICE.name}; not erased, or not wholly: web:ann." in ran.err
    assert f"bulk resume {operation.pk}" in ran.err
    monkeypatch.undo()
    assert manage("bulk", "resume", str(operation.pk)).code == 0
    assert not Contact.objects.exists()


def test_bots_whose_settings_name_them_are_told(manage) -> None:
    a_bot("owned", settings={"owners": "ann, bob"})
    assert manage("identity", "erase", "web:ann", "--json").json["bots"] == ["owned"]


def test_retention_shows_and_applies(manage, settings) -> None:
    found = {row["kind"]: row for row in manage("retention", "--json").json}
    assert (found["journal"]["days"], found["audit"]["days"], found["history"]["days"]) == (30, None, None)
    assert found["journal"]["due"] == 1, "the past of the tests is long ago"
    assert JournalEntry.objects.exists()
    assert "Nothing was changed" in manage("retention").out
    assert manage("retention", "--apply", "--json").json["removed"]["journal"] == 1
    assert not JournalEntry.objects.exists()
    assert HistoryMessage.objects.count() == 2, "kept for ever, unless a setting says otherwise"
    assert AuditEvent.objects.get(verb="retention.apply").after["journal"] == 1


def test_zero_keeps_for_ever(manage, settings) -> None:
    settings.BOTSRT = {"TTL_SECONDS": "0", "KEEP_TURNS_DAYS": "0", "KEEP_OUTBOX_DAYS": "0"}
    conf.load.cache_clear()
    assert all(row["due"] == 0 for row in manage("retention", "--json").json)
    manage("retention", "--apply")
    assert JournalEntry.objects.exists()
