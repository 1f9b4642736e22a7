"""Transcripts of a conversation, over all platforms, as files for people and programs."""

from __future__ import annotations

import csv
import heapq
import io
import json
import re
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

from botsrt.core import redact
from botsrt.core.actors import Actor
from botsrt.core.errors import InvalidInput, NotFound
from botsrt.core.states import HistoryKind
from botsrt.core.text import one_line
from botsrt.models import BotSession, HistoryMessage
from botsrt.services import audit, sessions

FORMATS = ("jsonl", "csv", "markdown")

#: Rows read at a time, so that a transcript of any length needs little memory.
_CHUNK = 500

#: A spreadsheet takes a cell that begins like this for a formula; the last four are the wide forms of East Asian
#: keyboards. Source: OWASP, CSV injection.
_FORMULA = re.compile(r"^[=+\-@\t\r\n＝＋－＠]")

#: Whatever Markdown could take for more than a character of a name; a link needs no brackets in some dialects.
_MARKUP = re.compile(r"([!-/:-@\[-`{-~])")

#: Addresses and numbers that lead to a human. What stands before the @ has at most 64 characters (source: RFC 5321,
#: 4.5.3.1.1); without that limit a long word took time by the square of its length.
_PERSONAL = re.compile(r"[\w.+-]{1,64}@[\w-]+\.[\w.-]+|\+?\d[\d\s()/-]{6,}\d")

_FIELDS = ("at", "platform", "session", "who", "role", "kind", "source", "text")


def export(
    *,
    session_id: str,
    file_format: str,
    is_redacted: bool,
    accounts: Collection[str] | None = None,
    actor: Actor,
    reason: str = "",
    now: datetime,
) -> Iterator[str]:
    """The whole conversation that the session belongs to, oldest first, in pieces.

    Args:
        is_redacted: names, addresses and numbers are left out, and so are notes of staff.
        accounts: only what was said with these bots; None: everything.

    Raises:
        NotFound: there is no such session.
        InvalidInput: there is no such format.
    """
    if file_format not in FORMATS:
        raise InvalidInput("format", f"{file_format!r} is not one of {', '.join(FORMATS)}.")
    session = BotSession.objects.filter(session_id=session_id).first()
    if session is None:
        raise NotFound(f"There is no session {session_id}; see: sessions list")
    audit.record(
        actor=actor,
        verb="sessions.export",
        object_kind="session",
        object_id=session_id,
        reason=reason,
        after={"format": file_format, "redacted": is_redacted}
        | ({} if accounts is None else {"bots": sorted(accounts)}),
        now=now,
    )
    rows = _rows(session.lane, is_redacted=is_redacted, accounts=accounts)
    return {"jsonl": _jsonl, "csv": _csv, "markdown": _markdown}[file_format](rows)


def _rows(lane: str, *, is_redacted: bool, accounts: Collection[str] | None) -> Iterator[dict[str, Any]]:
    together = [
        _said(session, is_redacted=is_redacted, accounts=accounts) for session in BotSession.objects.filter(lane=lane)
    ]
    for message in heapq.merge(*together, key=lambda message: message.pk):
        yield _row(message, is_redacted=is_redacted)


def _said(session: BotSession, *, is_redacted: bool, accounts: Collection[str] | None) -> Iterator[HistoryMessage]:
    """What was said in one session, piece by piece from its index: a lane's would have to be sorted first."""
    last = 0
    messages = HistoryMessage.objects.filter(session=session).order_by("id")
    if accounts is not None:
        messages = messages.filter(sessions.said_with(accounts))
    if is_redacted:
        messages = messages.exclude(kind=HistoryKind.NOTE)
    while chunk := list(messages.filter(id__gt=last)[:_CHUNK]):
        last = chunk[-1].pk
        for message in chunk:
            message.session = session
            yield message


def _row(message: HistoryMessage, *, is_redacted: bool) -> dict[str, Any]:
    text = redact.redact(message.text)
    return {
        "at": message.created_at.isoformat(),
        "platform": message.session.platform,
        "session": "" if is_redacted else message.session.session_id,
        "who": "" if is_redacted else message.sender_name,
        "role": message.role,
        "kind": message.kind,
        "source": "" if is_redacted else message.source,
        "text": _PERSONAL.sub("[removed]", text) if is_redacted else text,
    }


def _jsonl(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(row, ensure_ascii=False) + "\n"


def _csv(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=_FIELDS)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _FORMULA.sub(lambda match: "'" + match[0], str(row[name])) for name in _FIELDS})
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def _markdown(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    yield "# Transcript\n"
    for row in rows:
        who = row["who"] or row["source"] or row["role"]
        kind = "" if row["kind"] == HistoryKind.CHAT else f" · {row['kind']}"
        yield f"\n**{_plain(who)}** · {row['platform']} · {row['at']}{kind}\n\n"
        # Indented: whatever people wrote is text, never a heading, a link or an image.
        yield "".join(f"    {line}\n" for line in row["text"].splitlines())


def _plain(name: str) -> str:
    return _MARKUP.sub(r"\\\1", one_line(name))
