"""Tell staff of trouble without being asked: once for each bout, again after hours, and once when it is over.

An alert is raised when a figure passes its threshold and cleared when it has been well for a while, so that what comes
and goes is one bout. What is to be told is written down with it, a row for each place; ``tasks`` tells it. Nothing
here sends anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import Count, F

from botsrt.core import redact, silence
from botsrt.core.actors import Actor
from botsrt.core.alerting import MAIL, Policy, chat
from botsrt.core.errors import Conflict, NotFound
from botsrt.core.states import AdapterStatus, AlertKind, NoticeKind, OutboxState
from botsrt.models import Alert, AlertNotice, Bot
from botsrt.services import audit, figures, news, notices
from botsrt.services.figures import BotFigures
from botsrt.services.notices import Address

#: Window in which failures are counted.
_GROWTH_WINDOW = timedelta(hours=1)

#: Notices that are told in one go at most; the next run goes on.
_MAX_NOTICES = 100

#: Wait before the next try of a notice that could not be told: doubled with each, up to the longest.
_RETRY_AFTER = timedelta(minutes=1)
_MAX_RETRY_AFTER = timedelta(hours=1)

_MAX_ERROR_CHARS = 500

_URGENT = frozenset({AlertKind.NO_WORKER, AlertKind.ADAPTER_DOWN, AlertKind.BACKLOG, AlertKind.JOURNAL_FULL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong now."""

    kind: AlertKind
    text: str
    account: str = ""  # the bot that it is about; empty: all

    @property
    def is_urgent(self) -> bool:
        return self.kind in _URGENT


@dataclass(frozen=True, slots=True, kw_only=True)
class DueNotice:
    """What should be told now."""

    id: int
    target: str
    text: str


# -- what is wrong ----


def look(*, policy: Policy, now: datetime) -> list[Finding]:
    """Everything that is wrong now, as the figures have it."""
    bots = figures.bots(now=now)
    return [
        *_adapters(bots, policy, now),
        *_piles(policy, now),
        *(_silent(bots, now) if policy.watches_silence else ()),
    ]


def _adapters(bots: Sequence[BotFigures], policy: Policy, now: datetime) -> Iterator[Finding]:
    """Nobody at work, else the bots that have been down for long enough."""
    down = [
        bot for bot in bots if bot.is_enabled and not bot.is_up and now - bot.down_since() >= policy.adapter_down_after
    ]
    if down and not figures.workers(now=now).count:
        yield Finding(kind=AlertKind.NO_WORKER, text="No worker runs: nothing is read, answered or sent.")
        return
    for bot in down:
        state = bot.state if bot.is_held else AdapterStatus.STOPPED
        words = f"The bot {bot.account} ({bot.platform}) is not connected: {state.replace('_', ' ')}."
        yield Finding(kind=AlertKind.ADAPTER_DOWN, account=bot.account, text=f"{words} {bot.error}".strip())


def _piles(policy: Policy, now: datetime) -> Iterator[Finding]:
    unanswered = figures.unanswered()
    if unanswered.oldest_at is not None and now - unanswered.oldest_at >= policy.backlog_age:
        count = f"{unanswered.count:,}{'+' if unanswered.has_more else ''}"
        minutes = (now - unanswered.oldest_at) // timedelta(minutes=1)
        yield Finding(
            kind=AlertKind.BACKLOG, text=f"Waiting for an answer: {count}, the oldest for {minutes:,} minutes."
        )
    if figures.unfinished(most=policy.full_entries) >= policy.full_entries:
        yield Finding(
            kind=AlertKind.JOURNAL_FULL,
            text=f"The journal is nearly full: {policy.full_entries:,} unfinished messages or more.",
        )
    failed = figures.failed_since(now - _GROWTH_WINDOW)
    if failed >= policy.dlq_growth:
        yield Finding(kind=AlertKind.DLQ_GROWTH, text=f"Failed for good within an hour: {failed:,}.")
    unknown = figures.outgoing(OutboxState.UNKNOWN)
    if unknown.count >= policy.unknown_sends:
        yield Finding(
            kind=AlertKind.UNKNOWN_SENDS, text=f"Messages that may or may not have arrived: {unknown.count:,}."
        )


def _silent(bots: Sequence[BotFigures], now: datetime) -> Iterator[Finding]:
    """Bots that are up, and quieter than ever at this time. Those that are down have an alert of their own."""
    up = {bot.account: bot for bot in bots if bot.is_up}
    first = figures.first_hours()
    known = [account for account in up if account in first]
    counts = figures.hours_of(known, since=now - timedelta(weeks=silence.WEEKS + 1))
    for account in known:
        bot = up[account]
        quiet_since = max(filter(None, (bot.last_inbound_at, bot.state_since)))
        found = silence.judge(quiet_since=quiet_since, counts=counts[account], counted_from=first[account], now=now)
        if found is not None:
            yield Finding(
                kind=AlertKind.SILENCE,
                account=account,
                text=f"The bot {account} has received nothing since {found.since:%Y-%m-%d %H:%M} UTC. In each of the "
                f"last {found.weeks} weeks it had {found.expected:.0f} messages or more at these times.",
            )


# -- bouts ----


def watch(*, findings: Collection[Finding], policy: Policy, now: datetime) -> None:
    """Raise what is new, remind of what is still there, clear what is gone; write down what is to be told. Safe to run
    twice at once."""
    for finding in findings:
        _see(finding, policy, now)
    seen = {(finding.kind, finding.account) for finding in findings}
    for alert in Alert.objects.filter(cleared_at=None):
        if (alert.kind, alert.account) in seen:
            _remind(alert, policy, now)
        elif now - alert.last_seen_at >= policy.clear_after:
            _clear(alert, policy, now)


def _see(finding: Finding, policy: Policy, now: datetime) -> None:
    text = redact.redact(finding.text)
    here = Alert.objects.filter(kind=finding.kind, account=finding.account, cleared_at=None)
    if here.update(text=text, last_seen_at=now):
        return
    try:
        with transaction.atomic():
            alert = Alert.objects.create(
                kind=finding.kind,
                account=finding.account,
                text=text,
                is_urgent=finding.is_urgent,
                raised_at=now,
                last_seen_at=now,
            )
            _write(alert, NoticeKind.RAISED, text, policy, now)
            news.changed("alerts")
    except IntegrityError:  # another run has raised it in this moment
        return


def _remind(alert: Alert, policy: Policy, now: datetime) -> None:
    number = (now - alert.raised_at) // policy.remind_after
    if number < 1 or alert.acknowledged_at is not None:
        return
    waiting = set(alert.notices.filter(closed_at=None).values_list("target", flat=True))
    text = f"Still so since {alert.raised_at:%Y-%m-%d %H:%M} UTC, and nobody has acknowledged it: {alert.text}"
    with transaction.atomic():
        _write(alert, NoticeKind.REMINDER, text, policy, now, number=number, except_targets=waiting)


def _clear(alert: Alert, policy: Policy, now: datetime) -> None:
    with transaction.atomic():
        if not Alert.objects.filter(pk=alert.pk, cleared_at=None).update(cleared_at=now):
            return
        # What was not told yet is told by the notice of the end.
        alert.notices.filter(closed_at=None).update(closed_at=now)
        text = f"Over, after {_span(alert.last_seen_at - alert.raised_at)}: {alert.text}"
        _write(alert, NoticeKind.CLEARED, text, policy, now)
        news.changed("alerts")


def _write(
    alert: Alert,
    kind: NoticeKind,
    text: str,
    policy: Policy,
    now: datetime,
    *,
    number: int = 0,
    except_targets: Collection[str] = (),
) -> None:
    """A notice for each target; one that is there already stays as it is."""
    is_held = policy.quiet is not None and not alert.is_urgent
    due_at = (policy.quiet.until(now) if is_held and policy.quiet else None) or now
    AlertNotice.objects.bulk_create(
        [
            AlertNotice(alert=alert, kind=kind, number=number, target=target, text=text, created_at=now, due_at=due_at)
            for target in policy.targets
            if target not in except_targets
        ],
        ignore_conflicts=True,
    )


def _span(length: timedelta) -> str:
    minutes = max(length // timedelta(minutes=1), 1)
    if minutes < 120:
        return f"{minutes} minute{'' if minutes == 1 else 's'}"
    return f"{minutes // 60} hours"


# -- telling ----


def due(*, now: datetime) -> list[DueNotice]:
    """What should be told now, oldest first."""
    rows = AlertNotice.objects.filter(closed_at=None, due_at__lte=now).order_by("due_at", "id")
    return [DueNotice(id=row.pk, target=row.target, text=row.text) for row in rows[:_MAX_NOTICES]]


def told(*, notice_ids: Collection[int], now: datetime) -> None:
    """These were told."""
    AlertNotice.objects.filter(pk__in=notice_ids, closed_at=None).update(closed_at=now, is_told=True, error="")


def not_told(*, notice_ids: Collection[int], error: str, now: datetime) -> None:
    """These could not be told; they are tried again."""
    for row in AlertNotice.objects.filter(pk__in=notice_ids, closed_at=None):
        wait = min(_RETRY_AFTER * 2 ** min(row.attempts, 10), _MAX_RETRY_AFTER)
        AlertNotice.objects.filter(pk=row.pk, closed_at=None).update(
            attempts=F("attempts") + 1, error=redact.redact(error)[:_MAX_ERROR_CHARS], due_at=now + wait
        )


def tell_chats(*, due_notices: Collection[DueNotice], now: datetime) -> None:
    """Put what goes to chats into the outbox. What a bot that is down should say waits until it is up again, or until
    the notice of the end takes its place: the other targets have it meanwhile."""
    by_target: dict[str, list[DueNotice]] = {}
    for notice in due_notices:
        if notice.target != MAIL:
            by_target.setdefault(notice.target, []).append(notice)
    if not by_target:
        return
    bots = {bot.account: bot for bot in figures.bots(now=now)}
    for target, group in by_target.items():
        account, channel_id, thread_id = chat(target)
        ids = [notice.id for notice in group]
        bot = bots.get(account)
        if bot is None or not bot.is_up:
            why = "is not connected" if bot else "does not exist"
            not_told(notice_ids=ids, error=f"The bot {account} {why}.", now=now)
            continue
        text = "\n\n".join(notice.text for notice in group)
        address = Address(platform=bot.platform, account=account, channel_id=channel_id, thread_id=thread_id)
        with transaction.atomic():
            notices.tell(address, text, key=f"alerts:{ids[0]}-{ids[-1]}", now=now)
            told(notice_ids=ids, now=now)


# -- acts of staff ----


def acknowledge(*, alert_id: int, actor: Actor, reason: str = "", now: datetime) -> None:
    """Somebody has it in hand: no more reminders.

    Raises:
        NotFound: there is no such alert.
        Conflict: it is over, or somebody was first.
    """
    with transaction.atomic():
        alert = Alert.objects.filter(pk=alert_id).first()
        if alert is None:
            raise NotFound(f"There is no alert {alert_id} (any more).")
        open_rows = Alert.objects.filter(pk=alert_id, cleared_at=None, acknowledged_at=None)
        if not open_rows.update(acknowledged_at=now, acknowledged_by=actor.name):
            alert.refresh_from_db()
            if alert.acknowledged_at is not None:
                raise Conflict(f"{alert.acknowledged_by} has acknowledged it already.")
            raise Conflict("It is over.")
        alert.notices.filter(closed_at=None, kind=NoticeKind.REMINDER).update(closed_at=now)
        audit.record(
            actor=actor,
            verb="alerts.acknowledge",
            object_kind="alert",
            object_id=alert_id,
            reason=reason,
            after={"kind": alert.kind, "bot": alert.account, "text": alert.text},
            now=now,
        )
        news.changed("alerts")


def open_counts() -> Mapping[str, int]:
    """Alerts that are raised, by kind."""
    return dict(Alert.objects.filter(cleared_at=None).order_by().values_list("kind").annotate(Count("pk")))


def forget(*, before: datetime) -> int:
    """Remove what was over before then. Returns how many alerts."""
    _, removed = Alert.objects.filter(cleared_at__lt=before).delete()
    return removed.get(Alert._meta.label, 0)


def missing_chats(targets: Collection[str]) -> list[str]:
    """Those of the chats whose bot does not exist."""
    accounts = {target: chat(target)[0] for target in targets if target != MAIL}
    known = set(Bot.objects.filter(account__in=accounts.values()).values_list("account", flat=True))
    return [target for target, account in accounts.items() if account not in known]
