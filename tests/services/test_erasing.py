"""Erasing contacts: nothing of them is left in the database, and nobody else loses anything."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import defaultdict
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.db import connection, models
from django.utils import timezone

from botsrt import conf, tasks
from botsrt.core.errors import InvalidInput, NotFound
from botsrt.core.states import (
    BulkItemState,
    BulkState,
    BulkVerb,
    EntryState,
    EventKind,
    HistoryKind,
    Proof,
    RunMode,
    SessionScope,
    TurnState,
    UnknownUserPolicy,
)
from botsrt.models import (
    AuditEvent,
    Bot,
    BotSession,
    BulkItem,
    BulkOperation,
    Contact,
    DLQItem,
    HistoryMessage,
    IdentityLink,
    JournalEntry,
    OutboxMessage,
    Pairing,
    Person,
    PersonMerge,
    Preview,
    Recollection,
    Turn,
    WrongCodes,
)
from botsrt.services import (
    attachments,
    bulk,
    dlq,
    dossier,
    erasing,
    figures,
    handling,
    housekeeping,
    identity,
    journal,
    ledger,
    mirror,
    pairing,
    persons,
    search,
    sessions,
    summaries,
)
from tests.factories import (
    ALICE,
    LEASE,
    NOW,
    a_bot,
    a_group_message,
    a_message,
    answered,
    asks,
    claim,
    claim_one,
    finish,
    later,
    parked,
    receive,
    received,
)

pytestmark = pytest.mark.django_db(transaction=True)

USER = "u-quuxzanzibar"
NAMES = {"user_id": USER, "user_name": "handlezanzibar", "display_name": "Quentin Zanzibar"}


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


def erase(*contact_ids: int, reason: str = "asked by mail") -> BulkOperation:
    """Erase to the end, as the task cluster does. Returns the operation."""
    operation_id = bulk.begin(verb=BulkVerb.ERASE, object_ids=contact_ids, actor=ALICE, reason=reason, now=NOW)
    for _ in range(1_000):
        if bulk.advance(operation_id=operation_id, runner_id="r", now=NOW) is bulk.Progress.OVER:
            break
    operation = BulkOperation.objects.get(pk=operation_id)
    assert operation.state == BulkState.FINISHED
    assert set(operation.items.values_list("state", flat=True)) == {BulkItemState.DONE}
    return operation


def said(text: str, **fields: Any) -> Any:
    return a_message(text, channel_id="direct", **NAMES, **fields)


# -- nothing is left, in any column of any table ----


def _a_life() -> int:
    """A contact with rows of every kind. Returns its id."""
    answered(said("first textzanzibar"), "reply textzanzibar")
    contact = Contact.objects.get(platform_user_id=USER)
    session = BotSession.objects.get(contact=contact)
    mirror.append(user_id=session.session_id, text="mirror textzanzibar", source_label="cron", now=NOW)
    handling.note(session_id=session.session_id, text="note textzanzibar", actor=ALICE, now=NOW)
    item = parked(said("broken textzanzibar"), text="failed on textzanzibar", traceback="at textzanzibar")
    dlq.annotate(item_id=item.pk, actor=ALICE, note="Quentin Zanzibar again", now=NOW)
    received(said("held textzanzibar"), now=NOW)
    finish(claim_one(now=later(hours=7)), "late textzanzibar", now=later(hours=7))
    identity.link(
        platform="web",
        user_id=USER,
        unified_user_id="personzanzibar",
        proof=Proof.STAFF,
        actor=ALICE,
        reason="textzanzibar said so",
        now=NOW,
    )
    identity.link(
        platform="web",
        user_id="second-zanzibar",
        unified_user_id="loserzanzibar",
        proof=Proof.STAFF,
        actor=ALICE,
        reason="textzanzibar",
        now=NOW,
    )
    persons.merge(loser="loserzanzibar", winner="personzanzibar", actor=ALICE, reason="textzanzibar", now=NOW)
    answered(a_group_message("ours textzanzibar", **NAMES), "hello all")
    answered(a_group_message("theirs, kept", user_id="other", display_name="Other"), "hello other")
    received(said("running textzanzibar"), now=NOW)
    turn = claim_one(now=NOW)
    Preview.objects.create(
        turn_id=turn.id,
        entry_id=turn.entries[0].id,
        account="shop",
        channel_id="direct",
        next_attempt_at=NOW,
        created_at=NOW,
    )
    received(said("waiting textzanzibar"), now=NOW)
    WrongCodes.objects.create(guesser=f"contact:{contact.pk}", last_at=NOW)
    Pairing.objects.create(
        platform="web",
        account="shop",
        contact=contact,
        purpose="access",
        state="denied",
        nonce="n",
        code_hash="h",
        created_at=NOW,
        expires_at=NOW,
        session=session,
        channel_id="direct",
        first_words="words textzanzibar",
        code_sent_at=NOW,
    )
    return contact.pk


def _theirs(contact_ids: list[int]) -> dict[type[models.Model], set[Any]]:
    """All rows that lead to these contacts by foreign keys, found from the models as they are."""
    found: defaultdict[type[models.Model], set[Any]] = defaultdict(set, {Contact: set(contact_ids)})
    links = IdentityLink.objects.filter(contact__in=contact_ids)
    found[Person] = set(links.values_list("person", flat=True))
    groups = set(BotSession.objects.filter(scope=SessionScope.PER_CHAT).values_list("pk", flat=True))
    # What others, and the bot, said in a group stays.
    common: dict[type[models.Model], set[Any]] = {
        OutboxMessage: set(OutboxMessage.objects.filter(session__in=groups).values_list("pk", flat=True)),
        Turn: set(Turn.objects.filter(session__in=groups).values_list("pk", flat=True)),
        HistoryMessage: set(
            HistoryMessage.objects.filter(session__in=groups)
            .exclude(entry__contact__in=contact_ids)
            .values_list("pk", flat=True)
        ),
    }
    for _ in range(5):
        for model in apps.get_app_config("botsrt").get_models():
            for field in model._meta.concrete_fields:
                if isinstance(field, models.ForeignKey) and found[field.related_model]:
                    rows = model._default_manager.filter(**{f"{field.name}__in": found[field.related_model]})
                    found[model] |= set(rows.values_list("pk", flat=True)) - common.get(model, set())
    return found


#: What tells a redelivery, and what is not of a person.
_STRUCTURE = {"platform", "account", "id", "agent"}
_KEY: dict[type[models.Model], set[str]] = {JournalEntry: {"channel_id", "message_id", "revision"}}


def _plant(found: dict[type[models.Model], set[Any]]) -> list[str]:
    """Write a word of its own into every text of these rows. Returns the words."""
    words, numbers = [], itertools.count(100_000)
    for model, ids in found.items():
        for row in model._default_manager.filter(pk__in=ids):
            changes: dict[str, Any] = {}
            for field in model._meta.concrete_fields:
                if field.choices or field.primary_key or field.name in _STRUCTURE | _KEY.get(model, set()):
                    continue
                word = hashlib.sha256(str(next(numbers)).encode()).hexdigest()[:16]
                if isinstance(field, models.JSONField):
                    if isinstance(row, HistoryMessage) and row.kind == "note" and field.name == "route":
                        continue
                    changes[field.name] = {"planted": {"deep": word}}
                elif isinstance(field, models.CharField | models.TextField):
                    if field.name == "lane" or (field.name == "guesser"):
                        continue
                    changes[field.name] = word
                else:
                    continue
                words.append(word)
            if changes:
                model._default_manager.filter(pk=row.pk).update(**changes)
    return words


def _dump() -> bytes:
    """Everything in the database: the bytes of the file and of what stands beside it, or every row of every table."""
    tasks.rewrite_database()
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            path = str(settings.DATABASES["default"]["NAME"])
            pieces = []
            for ending in ("", "-wal", "-journal"):
                try:
                    with open(path + ending, "rb") as file:
                        pieces.append(file.read())
                except FileNotFoundError:
                    continue
            return b"".join(pieces)
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        names = [name for (name,) in cursor.fetchall()]
        pieces = []
        for name in names:
            cursor.execute(f'SELECT t::text FROM "{name}" t')
            pieces += [row[0].encode() for row in cursor.fetchall()]
        return b"\n".join(pieces)


def test_no_column_of_any_table_still_has_a_word_of_theirs():
    contact_id = _a_life()
    ids = erasing.contacts_of("personzanzibar")
    assert contact_id in ids
    found = _theirs(ids)
    for model in (HistoryMessage, JournalEntry, DLQItem, OutboxMessage, Turn, Pairing, Preview, IdentityLink, Person):
        assert found[model], f"the world has no {model.__name__} of theirs"
    assert PersonMerge.objects.exists()
    words = _plant(found)
    before = _dump()
    assert len(words) > 100
    assert all(word.encode() in before for word in words)
    erase(*ids)
    after = _dump()
    # The end of each word: SQLite's index leaves out what a word has in common with the one before it.
    assert [word for word in words if word[4:].encode() in after] == []


def test_no_word_of_theirs_is_left_where_others_spoke_of_them():
    _a_life()
    assert b"zanzibar" in _dump().lower()
    erase(*erasing.contacts_of("personzanzibar"))
    after = _dump()
    left = [after[max(0, found.start() - 60) : found.end() + 40] for found in re.finditer(b"(?i)zanzibar", after)]
    assert left == []
    assert HistoryMessage.objects.filter(text="theirs, kept").exists()
    assert HistoryMessage.objects.filter(text="hello all").exists(), "what the bot said in the group"
    report = ledger.check(since=None, lease=LEASE, now=NOW)
    assert report.is_balanced, report.leaks


def test_words_of_theirs_are_found_by_no_search():
    answered(said("unmistakable wordzanzibar"), "echo wordzanzibar")
    assert search.newest("wordzanzibar")[0].exists()
    erase(Contact.objects.get().pk)
    assert not search.newest("wordzanzibar")[0].exists()


def test_words_of_theirs_leave_the_index_of_the_search():
    answered(said("hello"))
    answered(a_message("hello", user_id="other", channel_id="other"))
    words = [hashlib.sha256(f"index {number}".encode()).hexdigest()[:16] for number in range(400)]
    sessions = BotSession.objects.order_by("pk")
    for number, word in enumerate(words):  # each its own commit, as in life: the index grows in segments
        HistoryMessage.objects.create(
            session=sessions[1 if number % 4 else 0], role="user", text=f"{word} and more", created_at=NOW
        )
    erase(Contact.objects.get(platform_user_id=USER).pk)
    after = _dump()
    assert [word for word in words[::4] if word[4:].encode() in after] == []
    assert sum(word.encode() in after for word in words) == 300


# -- what is left ----


def test_a_redelivery_of_an_erased_message_is_a_duplicate():
    message = said("hello", message_id="m-1")
    answered(message)
    erase(Contact.objects.get().pk)
    assert receive(message) is None
    tombstone = JournalEntry.objects.get()
    assert (tombstone.kind, tombstone.duplicates, tombstone.payload) == (EventKind.ERASED, 1, {})
    assert claim() == []
    assert not Contact.objects.exists(), "a duplicate makes nobody known again"


def test_tombstones_are_not_counted_as_messages():
    figures.count_up(now=NOW - timedelta(days=1))
    for number in range(3):
        answered(said(f"text {number}"), now=NOW)
    figures.count_up(now=later(minutes=2))
    before = {name: dict(counts) for name, counts in figures.totals().items()}
    assert (before["received"], before["ended"]) == ({"shop": 3}, {"answered": 3})
    contact_id = Contact.objects.get().pk
    erase(contact_id)
    JournalEntry.objects.update(received_at=later(hours=1), completed_at=later(hours=1))
    figures.count_up(now=later(hours=2))
    assert figures.totals() == before
    assert sum(figures.hours_of(["shop"], since=NOW)["shop"].values()) == 3
    assert figures.last_counted_entry() == JournalEntry.objects.latest("pk").pk, "they are removed like any other"


def test_an_erased_message_cannot_be_replayed():
    answered(said("hello"))
    erase(Contact.objects.get().pk)
    with pytest.raises(InvalidInput, match="erased"):
        journal.replay(entry_id=JournalEntry.objects.get().pk, mode=RunMode.SEND, actor=ALICE, reason="", now=NOW)


def test_who_writes_after_the_first_step_is_somebody_new():
    answered(said("before"))
    old = Contact.objects.get()
    operation_id = bulk.begin(verb=BulkVerb.ERASE, object_ids=[old.pk], actor=ALICE, now=NOW)
    bulk.advance(operation_id=operation_id, runner_id="r", now=NOW)
    received(said("meanwhile"))
    turn = claim_one()
    assert [entry.message.text for entry in turn.entries] == ["meanwhile"]
    assert turn.session_id == f"bot_web_{USER}"
    assert finish(turn, "answer")
    while bulk.advance(operation_id=operation_id, runner_id="r", now=NOW) is not bulk.Progress.OVER:
        pass
    assert set(HistoryMessage.objects.values_list("text", flat=True)) == {"meanwhile", "answer"}
    assert Contact.objects.get().pk != old.pk


def test_a_running_turn_is_cancelled_and_its_late_result_refused():
    received(said("hello"))
    turn = claim_one()
    contact = Contact.objects.get()
    operation_id = bulk.begin(verb=BulkVerb.ERASE, object_ids=[contact.pk], actor=ALICE, now=NOW)
    bulk.advance(operation_id=operation_id, runner_id="r", now=NOW)
    assert not Turn.objects.filter(state=TurnState.RUNNING).exists()
    assert not finish(turn, "late")
    assert not OutboxMessage.objects.exists()
    assert JournalEntry.objects.get().state == EntryState.COMPLETED


def test_a_group_turn_of_several_people_goes_on_for_the_others():
    received(a_group_message("mine", **NAMES))
    received(a_group_message("yours", user_id="other"))
    claim_one()
    erase(Contact.objects.get(platform_user_id=USER).pk)
    turn = claim_one()
    assert [entry.message.text for entry in turn.entries] == ["yours"]
    assert finish(turn, "for you")
    assert ledger.check(since=None, lease=LEASE, now=NOW).is_balanced


def test_an_operation_goes_on_after_its_runner_died():
    for number in range(3):
        answered(said(f"text {number}"))
    operation_id = bulk.begin(verb=BulkVerb.ERASE, object_ids=[Contact.objects.get().pk], actor=ALICE, now=NOW)
    bulk.advance(operation_id=operation_id, runner_id="dead", now=NOW)
    assert bulk.advance(operation_id=operation_id, runner_id="new", now=NOW) is bulk.Progress.OVER, "still leased"
    for _ in range(100):
        bulk.advance(operation_id=operation_id, runner_id="new", now=NOW + 2 * bulk.LEASE)
    assert BulkOperation.objects.get().state == BulkState.FINISHED
    assert not Contact.objects.exists()
    assert not HistoryMessage.objects.exists()


def test_more_rows_than_one_chunk(monkeypatch):
    monkeypatch.setattr(erasing, "CHUNK", 2)
    for number in range(5):
        answered(said(f"text {number}"))
    erase(Contact.objects.get().pk)
    assert JournalEntry.objects.filter(kind=EventKind.ERASED).count() == 5
    assert not HistoryMessage.objects.exists()


def test_one_contact_of_a_person_goes_and_the_other_stays():
    answered(said("mine"))
    answered(a_message("also mine", user_id="second", channel_id="second"))
    for user_id in (USER, "second"):
        identity.link(
            platform="web",
            user_id=user_id,
            unified_user_id="quentin",
            proof=Proof.STAFF,
            actor=ALICE,
            reason="asked",
            now=NOW,
        )
    erase(Contact.objects.get(platform_user_id=USER).pk)
    assert Person.objects.get().unified_user_id == "quentin"
    assert set(HistoryMessage.objects.values_list("text", flat=True)) == {"also mine", "Hi"}
    erase(Contact.objects.get().pk)
    assert not Person.objects.exists()


def test_a_summary_that_others_share_goes_with_what_it_sums_up():
    for number in range(3):
        answered(said(f"want {number} textzanzibar"), "noted")
        answered(a_message(f"mine {number}", user_id="other", channel_id="other"), "noted")
    for user_id in (USER, "other"):
        identity.link(
            platform="web",
            user_id=user_id,
            unified_user_id="both",
            proof=Proof.STAFF,
            actor=ALICE,
            reason="known",
            now=NOW,
        )
    other = BotSession.objects.get(contact__platform_user_id="other")
    draft = summaries.due(session_pk=other.pk, after=4)
    assert draft is not None
    assert summaries.keep(draft=draft, text="They want textzanzibar.", agent="helper", usage={}, now=NOW)
    erase(Contact.objects.get(platform_user_id=USER).pk)
    assert not HistoryMessage.objects.filter(text__contains="zanzibar").exists()
    assert HistoryMessage.objects.filter(session=other, text__startswith="mine").count() == 3


def _linked(*user_ids: str) -> None:
    for user_id in user_ids:
        identity.link(
            platform="web",
            user_id=user_id,
            unified_user_id="both",
            proof=Proof.STAFF,
            actor=ALICE,
            reason="known",
            now=NOW,
        )


def _sum_up(session: BotSession, text: str) -> None:
    draft = summaries.due(session_pk=session.pk, after=4)
    assert draft is not None
    assert summaries.keep(draft=draft, text=text, agent="helper", usage={}, now=NOW)


def _summaries() -> list[str]:
    rows = HistoryMessage.objects.filter(kind=HistoryKind.SUMMARY).order_by("pk")
    return list(rows.values_list("text", flat=True))


def test_summaries_of_a_group_in_which_they_spoke_go():
    for number in range(3):
        answered(a_group_message(f"mine {number}", **NAMES), "noted")
        answered(a_group_message(f"yours {number}", user_id="other"), "noted")
        answered(a_group_message(f"elsewhere {number}", user_id="other", channel_id="far"), "noted")
    groups = list(BotSession.objects.filter(scope=SessionScope.PER_CHAT).order_by("pk"))
    assert len(groups) == 2
    for group in groups:
        _sum_up(group, f"They want {group.pk}.")
    HistoryMessage.objects.filter(kind=HistoryKind.SUMMARY).update(metadata={})  # whoever it is said to be of
    erase(Contact.objects.get(platform_user_id=USER).pk)
    assert _summaries() == [f"They want {groups[1].pk}."], "the group in which they never spoke"
    assert Recollection.objects.get(session=groups[0]).summary is None
    assert not Recollection.objects.get(session=groups[0]).covers


def test_summaries_of_a_group_go_though_what_they_said_there_is_gone():
    for number in range(3):
        answered(a_group_message(f"mine {number}", **NAMES), "noted")
    group = BotSession.objects.get(scope=SessionScope.PER_CHAT)
    _sum_up(group, "They want textzanzibar.")
    HistoryMessage.objects.exclude(kind=HistoryKind.SUMMARY).delete()
    erase(Contact.objects.get(platform_user_id=USER).pk)
    assert _summaries() == []


def test_messages_in_groups_go_though_housekeeping_removed_their_entries():
    for number in range(3):
        answered(a_group_message(f"mine {number}", **NAMES), "noted")
        answered(a_group_message(f"yours {number}", user_id="other"), "noted")
    group = BotSession.objects.get(scope=SessionScope.PER_CHAT)
    contact = Contact.objects.get(platform_user_id=USER)
    keep = partial(housekeeping.run, now=NOW, ttl=timedelta(days=30), dlq_max_size=9, dlq_ttl=None)
    for max_size in (3, 0):
        keep(max_size=max_size)
        assert JournalEntry.objects.count() == max_size
        assert erasing.preview(contact_ids=[contact.pk]).group_messages == 3
    assert not JournalEntry.objects.exists()
    _sum_up(group, "They want textzanzibar.")
    held = json.loads("".join(dossier.export(contact_ids=[contact.pk], actor=ALICE, now=NOW)))
    assert [row["text"] for row in held["messages_in_groups_before"]] == ["mine 0", "mine 1", "mine 2"]
    erase(contact.pk)
    assert _summaries() == []
    left = HistoryMessage.objects.filter(role="user").order_by("pk")
    assert list(left.values_list("text", flat=True)) == ["yours 0", "yours 1", "yours 2"]
    assert HistoryMessage.objects.filter(role="assistant").count() == 6, "what the bot said in the group"


def test_a_summary_of_both_goes_after_the_link_ended():
    for number in range(3):
        answered(said(f"want {number}"), "noted")
        answered(a_message(f"mine {number}", user_id="other", channel_id="other"), "noted")
    other = BotSession.objects.get(contact__platform_user_id="other")
    _sum_up(other, "My own.")
    _linked(USER, "other")
    _sum_up(other, "They want textzanzibar.")
    identity.unlink(platform="web", user_id=USER, actor=ALICE, reason="not the same", now=NOW)
    erase(Contact.objects.get(platform_user_id=USER).pk)
    assert _summaries() == ["My own."]


def test_a_summary_that_folded_one_of_theirs_in_goes_after_a_new_beginning():
    for number in range(3):
        answered(said(f"want {number}"), "noted")
    answered(a_message("mine", user_id="other", channel_id="other"), "noted")
    _linked(USER, "other")
    other = BotSession.objects.get(contact__platform_user_id="other")
    _sum_up(other, "They want textzanzibar.")
    for number in range(4):
        answered(a_message(f"mine {number}", user_id="other", channel_id="other"), "noted")
    _sum_up(other, "They still want textzanzibar.")
    sessions.start_new(session=other, turn_id=Turn.objects.latest("started_at").pk, now=NOW)
    for number in range(4):
        answered(a_message(f"new {number}", user_id="other", channel_id="other"), "noted")
    identity.unlink(platform="web", user_id=USER, actor=ALICE, reason="not the same", now=NOW)
    other.refresh_from_db()
    _sum_up(other, "All new.")
    erase(Contact.objects.get(platform_user_id=USER).pk)
    assert _summaries() == ["All new."]
    assert Recollection.objects.get(session=other).summary is not None


def test_files_that_were_kept_of_theirs_go_from_the_disk(settings, tmp_path):
    settings.BOTSRT = {"FILES_FOLDER": str(tmp_path)}
    conf.load.cache_clear()
    contact_ids = [received(said("mine")).contact_id, received(a_message("mine", user_id="other")).contact_id]
    own, shared = attachments.put(b"a photo of zanzibar"), attachments.put(b"a logo")
    for contact_id, digests in zip(contact_ids, ((own, shared), (shared,)), strict=True):
        assert contact_id is not None
        for digest in digests:
            attachments.keep(
                account="shop", contact_id=contact_id, reference=digest, digest=digest, size_bytes=9, now=NOW
            )
    assert contact_ids[0] is not None
    assert erasing.preview(contact_ids=[contact_ids[0]]).files == 2
    erase(contact_ids[0])
    assert attachments.read(own) is None
    assert attachments.read(shared) == b"a logo"


def test_staff_reasons_that_name_somebody_are_masked_and_the_act_stays():
    Bot.objects.update(policy=UnknownUserPolicy.PAIR)
    request = asks(USER, "please", display_name="Quentin Zanzibar")
    pairing.deny(request_id=request.pk, actor=ALICE, reason="Quentin Zanzibar is unknown here", now=timezone.now())
    erase(Contact.objects.get().pk, reason="Quentin Zanzibar asked by mail")
    texts = "".join(str(row) for row in AuditEvent.objects.values_list("reason", "before", "after", "object_id"))
    assert "Zanzibar" not in texts
    assert AuditEvent.objects.filter(verb="pairing.deny").exists()
    assert BulkOperation.objects.get().reason == "[erased] asked by mail"


def _act(kind: str, object_id: str, **fields: Any) -> int:
    values = {"actor": "alice", "verb": f"{kind}.change", "at": NOW} | fields
    return AuditEvent.objects.create(object_kind=kind, object_id=object_id, **values).pk


@pytest.mark.parametrize("name", ["enabled", "shop", "alice", "policy", "web", "1000", "waiting"])
def test_acts_on_something_else_stay_as_they_are_whatever_somebody_is_called(name, django_user_model):
    """Whoever is called like a setting, a bot, a login, a state or a number takes nothing out of the audit."""
    django_user_model.objects.create(username="Alice")
    settings = {"policy": name, "settings": {"enabled": name, "greeting": f"{name}, hello"}, name: [name]}
    kept = [
        _act("bot", "shop", before=settings, after=settings, reason=f"{name} again"),
        _act("user", name, after={"bots": [name], "roles": [name]}),
        _act("retention", "all", after={name: 1_000}),
        _act("alert", "1", after={"kind": name, "bot": name, "text": "1000 messages wait: shop, enabled"}),
    ]
    before = list(AuditEvent.objects.filter(pk__in=kept).values())
    names = {"user_id": name, "user_name": name, "display_name": name}
    answered(a_message("hello", channel_id="direct", **names))
    contact = Contact.objects.get()
    identity.link(
        platform="web", user_id=name, unified_user_id=name, proof=Proof.STAFF, actor=ALICE, reason="asked", now=NOW
    )
    act = _act("person", name, after={"winner": name})
    erase(contact.pk)
    assert list(AuditEvent.objects.filter(pk__in=kept).values()) == before
    assert AuditEvent.objects.get(pk=act).object_id == "[erased]"
    assert not AuditEvent.objects.filter(object_id__contains=f"web:{name}").exists()


def test_why_staff_did_something_to_their_messages_is_forgotten():
    answered(said("wordzanzibar"), "held")
    answered(a_message("of somebody else", user_id="other", channel_id="other"), "held")
    for row in OutboxMessage.objects.order_by("pk"):
        _act("outbox", str(row.pk), reason="it is about a textzanzibar", before={"state": "held"})
    mine, shared = parked(said("one"), text="a"), parked(said("two"), text="b", error_class="Other")
    parked(a_message("two", user_id="other", channel_id="other"), text="b", error_class="Other")
    assert mine.fingerprint != shared.fingerprint
    for item in (mine, shared):
        dlq.annotate_group(fingerprint=item.fingerprint, actor=ALICE, note="of Quentin Zanzibar: textzanzibar", now=NOW)
    erase(Contact.objects.get(platform_user_id=USER).pk)
    acts = AuditEvent.objects.order_by("pk")
    assert [(row.reason, row.before) for row in acts.filter(object_kind="outbox")] == [
        ("[erased]", {}),
        ("it is about a textzanzibar", {"state": "held"}),
    ]
    assert [row.after for row in acts.filter(object_kind="dlq_group")] == [
        {},
        {"note": "of [erased]: textzanzibar", "items": 2},  # others' messages failed like that, too
    ]


def test_words_are_masked_where_somebody_wrote_freely_and_names_where_they_stand_as_values():
    answered(said("hello"))
    contact = Contact.objects.get()
    text = f"Quentin Zanzibar, {USER}, web:{USER} and bot_web_{USER}"
    acts = [
        _act("bot", "shop", reason=text, after={"platform": "web", "settings": {"owners": f"other, {USER},x{USER}"}}),
        _act("dlq_group", "f", before={"note": text}, after={"note": "Nobody.", "assigned_to": "Quentin Zanzibar"}),
        _act("contact", "web:other", after={"alias_of": f"web:{USER}", "person": "other"}),
        _act("bot", "far", after={"platform": "slack", "settings": {"owners": USER}}),
    ]
    unrelated = _act("user", f"bot_web_{USER}", after={"Quentin Zanzibar": [1]})
    held = erasing.preview(contact_ids=[contact.pk])
    assert held.audit == 3
    erase(contact.pk)
    act = AuditEvent.objects.get(pk=unrelated)
    assert (act.object_id, act.after) == (f"bot_web_{USER}", {"Quentin Zanzibar": [1]}), "neither keys nor logins"
    shop, group, other, far = (AuditEvent.objects.get(pk=pk) for pk in acts)
    masked = "[erased], [erased], [erased] and [erased]"
    assert shop.reason == group.before["note"] == masked
    assert shop.after["settings"] == {"owners": f"other, [erased],x{USER}"}
    assert group.after == {"note": "Nobody.", "assigned_to": "Quentin Zanzibar"}, "a login"
    assert (other.object_id, other.after) == ("web:other", {"alias_of": "[erased]", "person": "other"})
    assert far.after["settings"] == {"owners": USER}, "somebody else's, on another platform"


def test_the_preview_counts_and_changes_nothing():
    _a_life()
    ids = erasing.contacts_of("personzanzibar")
    held = erasing.preview(contact_ids=ids)
    assert held.contacts[0] == f"web:{USER}"
    assert (held.running, held.previews, held.pairings) == (1, 1, 1)
    assert held.entries == JournalEntry.objects.filter(contact__in=ids).count()
    assert held.group_messages == 1
    assert HistoryMessage.objects.filter(text="first textzanzibar").exists()


def test_nobody_is_an_error():
    with pytest.raises(NotFound, match="nobody web:nobody"):
        erasing.contacts_of("web:nobody")


def test_the_task_cluster_does_what_is_left():
    answered(said("hello"))
    tasks.begin_bulk(verb=BulkVerb.ERASE, object_ids=[Contact.objects.get().pk], actor=ALICE)
    assert not Contact.objects.exists()
    assert BulkItem.objects.get().state == BulkItemState.DONE
