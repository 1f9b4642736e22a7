"""Claimed entries and turns, as those who run them see them; and how they are read."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from botsrt.core.messages import InboundMessage, Route
from botsrt.core.states import RunMode, Trigger
from botsrt.services import sql


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedEntry:
    """One entry of a claimed turn."""

    id: int
    message: InboundMessage  # with the text that staff edited, where they did
    received_at: datetime
    attempts: int  # failed turns so far
    deaths: int
    contact_id: int
    root_id: int  # the contact that access and links are about: another one where this is an alias
    known_as: tuple[str, ...]  # the other contact's user id, if so
    is_from_blocked: bool
    command: str  # answered by the runtime itself, alone; empty: a message for the agent
    sealed_code: str  # of the code that /link was given; see core.pairing_codes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedTurn:
    """A running turn, as the worker that claimed it sees it."""

    id: uuid.UUID
    lane: str
    session_pk: int
    session_id: str
    generation: int
    platform: str
    account: str
    route: Route  # of its latest entry: all its entries came from this chat
    runs_aside: bool  # beside the lane's own turn: one command that is answered while that runs
    entries: tuple[ClaimedEntry, ...]  # in the order in which they came; at least one
    attempt: int
    trigger: Trigger
    run_mode: RunMode

    @property
    def entry_ids(self) -> list[int]:
        return [entry.id for entry in self.entries]


# -- read ----


class EntryRow(NamedTuple):
    """An entry, with all that its turn needs to know of it. In the order of ``SELECT``."""

    id: int
    lane: str
    session_pk: int
    session_id: str
    platform: str
    account: str
    channel_id: str
    thread_id: str
    attempts: int
    deaths: int
    runs_alone: bool
    runs_aside: bool
    trigger: str
    run_mode: str
    requested_by: str
    request_reason: str
    command: str
    payload: Any
    edited_text: str | None
    received_at: Any
    contact_id: int
    is_blocked: bool
    root_id: int | None
    root_user_id: str | None
    is_root_blocked: bool | None

    @property
    def chat(self) -> tuple[str, str, str]:
        return self.account, self.channel_id, self.thread_id


#: Reads ``EntryRow`` from an entry, its session and, by the joins of ``WHO``, who wrote it.
SELECT = """SELECT entry.id, entry.lane, session.id, session.session_id,
    entry.platform, entry.account, entry.channel_id, entry.thread_id, entry.attempts, entry.deaths, entry.runs_alone,
    entry.runs_aside, entry."trigger", entry.run_mode, entry.requested_by, entry.request_reason, entry.command,
    entry.payload, entry.edited_text, entry.received_at,
    contact.id, contact.is_blocked, root.id, root.platform_user_id, root.is_blocked """

WHO = """LEFT JOIN botsrt_contact AS contact ON contact.id = entry.contact_id
    LEFT JOIN botsrt_contact AS root ON root.id = contact.alias_of_id"""


def entries(entry_ids: Collection[int]) -> list[ClaimedEntry]:
    """The entries with their messages, oldest first; those without a message are not there.

    Raises:
        UnreadableUpdate: what is stored of one is no message (any more).
    """
    return [entry_of(row) for row in rows(entry_ids)]


def rows(entry_ids: Collection[int]) -> list[EntryRow]:
    """The entries, oldest first; those without a message are not there."""
    ids = list(entry_ids)
    return [EntryRow(*row) for row in sql.fetch(_THESE.format(ids=sql.marks(ids)), ids)] if ids else []


_THESE = f"""{SELECT} FROM botsrt_journalentry AS entry
    JOIN botsrt_botsession AS session ON session.id = entry.session_id {WHO}
    WHERE entry.id IN ({{ids}}) ORDER BY entry.id"""


def turn_of(turn_id: uuid.UUID, group: Sequence[EntryRow], *, generation: int) -> ClaimedTurn:
    """The turn that took the entries of ``group``."""
    first, last = group[0], group[-1]
    entries = tuple(map(entry_of, group))
    return ClaimedTurn(
        id=turn_id,
        lane=first.lane,
        session_pk=first.session_pk,
        session_id=first.session_id,
        generation=generation,
        platform=last.platform,
        account=last.account,
        route=entries[-1].message.route,
        runs_aside=first.runs_aside,
        entries=entries,
        attempt=attempt(group),
        trigger=Trigger(first.trigger),
        run_mode=RunMode(first.run_mode),
    )


def attempt(group: Sequence[EntryRow]) -> int:
    """The number of the try that a turn over these entries is."""
    return max(entry.attempts + entry.deaths for entry in group) + 1


def entry_of(row: EntryRow) -> ClaimedEntry:
    """The entry with its message, as staff edited it.

    Raises:
        UnreadableUpdate: what is stored is no message (any more).
    """
    payload = sql.as_json(row.payload)
    if row.edited_text is not None:
        payload["text"] = row.edited_text
    return ClaimedEntry(
        id=row.id,
        message=InboundMessage.from_payload(payload),
        received_at=sql.as_moment(row.received_at),
        attempts=row.attempts,
        deaths=row.deaths,
        contact_id=row.contact_id,
        root_id=row.root_id or row.contact_id,
        known_as=(row.root_user_id,) if row.root_user_id is not None else (),
        is_from_blocked=bool(row.is_blocked or row.is_root_blocked),
        command=row.command,
        sealed_code=payload.get("sealed_code", ""),
    )
