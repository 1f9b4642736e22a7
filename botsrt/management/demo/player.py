"""Plays the story: every act goes through the service that production uses, with the time at which it is said to be."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from botsrt.conf import RuntimeConfig
from botsrt.core import keys
from botsrt.core.access import Verdict
from botsrt.core.actors import Actor
from botsrt.core.errors import Conflict, UnreadableUpdate
from botsrt.core.messages import Attachment, InboundMessage, Sender, SendReceipt
from botsrt.core.states import AlertKind, BulkVerb, ChatType, DLQState, EntryState, Handler, PairingState, Proof
from botsrt.management.demo import story, talks
from botsrt.management.demo.story import Desk, Trouble
from botsrt.management.demo.talks import Line, Talk
from botsrt.models import AgentProfile, Alert, Bot, DLQItem, JournalEntry, Pairing
from botsrt.runtime import platforms
from botsrt.runtime.turn import gate
from botsrt.services import (
    alerts,
    audit,
    bots,
    bulk,
    claims,
    codes,
    dlq,
    finishing,
    handling,
    identity,
    journal,
    materials,
    mirror,
    outbox,
    pairing,
    reception,
    turns,
    workers,
)
from botsrt.services.alerts import Finding
from botsrt.services.bots import Changes
from botsrt.services.claimed import ClaimedTurn
from botsrt.services.dlq import Failure
from botsrt.services.finishing import Result

_LEASE = timedelta(seconds=30)
_CLAIM_TIMEOUT = timedelta(minutes=6)

#: When everything was set up.
_SET_UP = timedelta(days=4)

#: Every so many messages the platform delivers one twice.
_DELIVERED_TWICE = 23

#: The day's questions are the same each time.
_SEED = 4


def fill(*, config: RuntimeConfig, alive: timedelta, now: datetime) -> None:
    """Write everything, or nothing.

    Args:
        alive: how long the workers of the demo count as alive; then real ones take their bots over.

    Raises:
        Conflict: a bot or an agent has a name that the demo needs.
    """
    _must_be_free()
    with transaction.atomic():
        _set_up(now)
        stage = Stage(config=config, now=now, alive=alive)
        told = talks.all_talks(now=now, chance=stage.chance)
        acts: list[tuple[timedelta, Callable[[], object]]] = [
            *((talk.ago, partial(stage.play, talk)) for talk in told),
            *_beside(config, now),
        ]
        for _, act in sorted(acts, key=lambda timed: -timed[0]):
            act()
        _start_workers(alive, now)
        policy = config.alert_policy
        alerts.watch(findings=alerts.look(policy=policy, now=now), policy=policy, now=now)
        _change("travel", Changes(settings={"group_respond": "command"}), "too chatty in groups", now=now)


def _must_be_free() -> None:
    taken = [
        *Bot.objects.filter(account__in=story.DESKS).values_list("account", flat=True),
        *AgentProfile.objects.filter(name__in=story.AGENTS).values_list("name", flat=True),
    ]
    if taken:
        raise Conflict(f"The demo needs these names, which are taken: {', '.join(taken)}. Is it here already?")


def _staff(name: str) -> Actor:
    return Actor(name=name, address=story.STAFF[name])


# -- before and after the talks ----


def _set_up(now: datetime) -> None:
    """Agents and bots, as an administrator would have added them."""
    at = now - _SET_UP
    actor = _staff("tom")
    for name, (kind, instructions, settings) in story.AGENTS.items():
        bots.add_agent(
            name=name,
            kind=kind,
            options=platforms.agent_options(kind),
            instructions=instructions,
            settings=settings,
            actor=actor,
            now=at,
        )
    for account, desk in story.DESKS.items():
        changes = Changes(agent=desk.agent, policy=desk.policy, settings=desk.settings, credentials=desk.credentials)
        shape = platforms.shape(desk.platform)
        bots.add(account=account, platform=desk.platform, shape=shape, changes=changes, actor=actor, now=at)


def _beside(config: RuntimeConfig, now: datetime) -> Iterator[tuple[timedelta, Callable[[], object]]]:
    """What happens beside the talks: how long ago, and the act."""

    def at(ago: timedelta, act: Callable[..., object], **arguments: Any) -> tuple[timedelta, Callable[[], object]]:
        return ago, partial(act, **arguments, now=now - ago)

    yield at(timedelta(hours=26), _unreadable, config=config)
    yield at(timedelta(hours=9), _change, account="newsletter", changes=Changes(is_enabled=False), reason="season over")
    for hours, name in ((8.2, "vera"), (8.0, "tom"), (7.6, "sam")):
        ago = timedelta(hours=hours)
        yield at(ago, audit.record, actor=_staff(name), verb="account.sign_in", object_kind="user", object_id=name)
    outage = Finding(
        kind=AlertKind.ADAPTER_DOWN,
        account="it-desk",
        text="The bot it-desk (slack) is not connected: backoff. The handshake took longer than 10 s.",
    )
    policy = config.alert_policy
    yield at(timedelta(hours=6.5), alerts.watch, findings=[outage], policy=policy)
    yield at(timedelta(hours=6.4), _acknowledge, actor=_staff("sam"), reason=story.OUTAGE_NOTE)
    yield at(timedelta(hours=6.1), alerts.watch, findings=[outage], policy=policy)
    yield at(timedelta(hours=6.0), alerts.watch, findings=[], policy=policy)
    yield at(timedelta(minutes=100), pairing.expire)
    yield at(timedelta(minutes=70), _retry_in_vain, config=config)
    yield at(timedelta(minutes=50), _note_group, trouble="payment-gateway", assignee="vera", note=story.PAYMENT_NOTE)
    yield at(timedelta(minutes=46), _note_group, trouble="directory", assignee="sam", note=story.DIRECTORY_NOTE)


def _unreadable(*, config: RuntimeConfig, now: datetime) -> None:
    journal.receive_unreadable(
        platform="telegram",
        account="shop",
        event_id=str(story.UNREADABLE["update_id"]),
        raw=story.UNREADABLE,
        error=UnreadableUpdate("message.paid_media: a kind of message that is not known here."),
        now=now,
        max_raw_bytes=config.max_raw_bytes,
    )


def _change(account: str, changes: Changes, reason: str, *, now: datetime) -> None:
    shape = platforms.shape(story.DESKS[account].platform)
    bots.change(account=account, shape=shape, changes=changes, actor=_staff("tom"), reason=reason, now=now)


def _retry_in_vain(*, config: RuntimeConfig, now: datetime) -> None:
    """A retry of a group, step by step, that ends after its first message: it fails as before."""
    trouble = story.TROUBLES["payment-gateway"]
    items = DLQItem.objects.filter(error_class=trouble.error_class, state=DLQState.OPEN).order_by("pk")
    operation_id = bulk.begin(
        verb=BulkVerb.RETRY,
        object_ids=list(items.values_list("pk", flat=True)),
        actor=_staff("vera"),
        reason="the provider says that it works again",
        is_canary=True,
        now=now,
    )
    bulk.advance(operation_id=operation_id, runner_id="demo", now=now)
    (turn,) = claims.claim(
        worker_id=story.WORKERS[0][0],
        limit=10,
        aside_limit=0,
        accounts=["shop"],
        max_entries_per_turn=1,
        lease=_LEASE,
        claim_timeout=_CLAIM_TIMEOUT,
        now=now,
    )
    _fail_turn(turn, trouble, config=config, now=now + timedelta(seconds=11))
    bulk.advance(operation_id=operation_id, runner_id="demo", now=now + timedelta(seconds=12))


def _fail_turn(turn: ClaimedTurn, trouble: Trouble, *, config: RuntimeConfig, now: datetime) -> None:
    turns.fail(
        turn=turn,
        failure=Failure(
            error_class=trouble.error_class,
            error_text=trouble.text,
            traceback=trouble.traceback,
            frame=trouble.frame,
            is_transient=trouble.is_transient,
        ),
        max_attempts=config.max_attempts,
        notice_after=timedelta(seconds=config.notice_after_seconds),
        notice_text=config.trouble_text,
        now=now,
    )


def _note_group(*, trouble: str, assignee: str, note: str, now: datetime) -> None:
    found = DLQItem.objects.filter(error_class=story.TROUBLES[trouble].error_class, state=DLQState.OPEN)
    fingerprint = found.values_list("fingerprint", flat=True)[0]
    dlq.annotate_group(fingerprint=fingerprint, actor=_staff(assignee), note=note, assignee=assignee, now=now)


def _acknowledge(*, actor: Actor, reason: str, now: datetime) -> None:
    alert_id = Alert.objects.values_list("pk", flat=True).get(cleared_at=None)
    alerts.acknowledge(alert_id=alert_id, actor=actor, reason=reason, now=now)


def _start_workers(alive: timedelta, now: datetime) -> None:
    """Workers of which two live, and adapters in every state."""
    for number, (name, host, hours, end) in enumerate(story.WORKERS):
        started_at = now - timedelta(hours=hours)
        ended_at = started_at + timedelta(hours=100)
        lease = _LEASE if end else alive
        pid = 1_204 + 617 * number
        workers.register(worker_id=name, host=host, pid=pid, version="0.1.0", lease=lease, now=started_at)
        if end:
            workers.beat(worker_id=name, accounts=(), running_turns=0, now=ended_at)
        if end == "stopped":
            workers.goodbye(worker_id=name, now=ended_at)
    first, second = (name for name, _, _, end in story.WORKERS if not end)
    held: dict[str, list[str]] = {first: [], second: []}
    for account, desk in story.DESKS.items():
        if desk.is_enabled:
            worker = second if desk.platform == "slack" else first
            held[worker].append(account)
            _start_adapter(worker, account, desk, alive, now)
    for worker, accounts in held.items():
        workers.beat(worker_id=worker, accounts=accounts, running_turns=int(worker == first), now=now)


def _start_adapter(worker_id: str, account: str, desk: Desk, alive: timedelta, now: datetime) -> None:
    workers.lease_adapters(worker_id=worker_id, accounts=[account], lease=alive, now=now)
    ran = bool(desk.identity)
    for _ in range(desk.restarts):
        workers.report_adapter(
            worker_id=worker_id, account=account, state=desk.status, is_restart=True, now=now - timedelta(minutes=4)
        )
    workers.report_adapter(
        worker_id=worker_id,
        account=account,
        state=desk.status,
        error=desk.error,
        identity=desk.identity,
        applied_version=1 if ran else None,
        now=now - timedelta(minutes=2 if not ran else 4),
    )
    entries = JournalEntry.objects.filter(account=account).order_by("-received_at")
    last = entries.values_list("received_at", flat=True).first()
    workers.report_traffic(account=account, last_inbound_at=last, last_outbound_at=last)


# -- the talks ----


class Stage:
    """Where talks are played, one after the other, each on its own clock."""

    def __init__(self, *, config: RuntimeConfig, now: datetime, alive: timedelta) -> None:
        self.config = config
        self.now = now
        self.alive = alive
        self.chance = random.Random(_SEED)
        self.messages = 0
        self.worker_id = story.WORKERS[0][0]

    def play(self, talk: Talk) -> None:
        scene = _Scene(self, talk)
        for line in talk.lines:
            scene.play(line)
        scene.end()


class _Scene:
    """One talk: its clock, and the turn that is claimed and not ended."""

    def __init__(self, stage: Stage, talk: Talk) -> None:
        self.stage = stage
        self.account = talk.desk
        self.desk = story.DESKS[talk.desk]
        self.person = story.PEOPLE[talk.who]
        self.clock = stage.now - talk.ago
        self.chat_id, self.chat_name = story.CHATS[talk.chat] if talk.chat else ("", "")
        self.turn: ClaimedTurn | None = None
        self.last_mark = ""

    @property
    def session_id(self) -> str:
        platform = self.desk.platform
        if self.chat_id:
            return keys.group_session_id(platform, account=self.account, channel_id=self.chat_id)
        return keys.direct_session_id(platform, self.person.user_id)

    def play(self, line: Line) -> None:
        if line.mark != ">":
            self._claim()
        acts: dict[str, Callable[[Line], None]] = {
            ">": self._hear,
            "=": self._staff_say,
            "#": self._note,
            "~": self._mirror,
            "!": self._staff_act,
            "-": self._fail_once,
            "x": self._fail,
            ".": self._keep_running,
            "+": self._wait_an_hour,
        }
        acts.get(line.mark, self._answer)(line)
        self.last_mark = line.mark

    def end(self) -> None:
        """Who has no access asks for it; what else is not answered, waits."""
        if self.desk.policy == "pair":
            self._claim()
        assert self.turn is None, f"{self.session_id}: the last message is neither answered nor running"

    def _pass(self, least: float, most: float) -> None:
        """Let so many seconds pass, but not beyond now."""
        seconds = self.stage.chance.uniform(least, most)
        self.clock = min(self.clock + timedelta(seconds=seconds), self.stage.now)

    # -- a message's way ----

    def _hear(self, line: Line) -> None:
        self._pass(*((4, 15) if self.last_mark == ">" else (20, 110)))
        self.stage.messages += 1
        message = self._message(line)
        times = 2 if self.stage.messages % _DELIVERED_TWICE == 0 else 1
        for _ in range(times):
            journal.receive(message=message, now=self.clock, max_raw_bytes=self.stage.config.max_raw_bytes)

    def _message(self, line: Line) -> InboundMessage:
        person, number = self.person, 4_000 + self.stage.messages
        sent_at = self.clock.replace(microsecond=0)
        channel_id = self.chat_id or person.user_id.replace("U0", "D0", 1)
        return InboundMessage(
            platform=self.desk.platform,
            account=self.account,
            channel_id=channel_id,
            message_id=str(number),
            sender=Sender(user_id=person.user_id, user_name=person.handle, display_name=person.name),
            text=line.text,
            chat_type=ChatType.GROUP if self.chat_id else ChatType.DIRECT,
            chat_name=self.chat_name,
            is_mentioned=True,
            attachments=tuple(
                Attachment(kind=kind, reference=f"demo-{number}-{place}", name=name)
                for place, (kind, name) in enumerate(line.files)
            ),
            sent_at=sent_at,
            raw={
                "update_id": 70_100_000 + number,
                "message": {
                    "message_id": number,
                    "from": {"id": person.user_id, "name": person.name, "username": person.handle},
                    "chat": {"id": channel_id, "title": self.chat_name},
                    "date": int(sent_at.timestamp()),
                    "text": line.text,
                },
            },
        )

    def _claim(self) -> None:
        """Claim what waits here. What needs no agent is answered at once."""
        if self.turn is not None:
            return
        self._pass(0.3, 1.2)
        claimed = claims.claim(
            worker_id=self.stage.worker_id,
            limit=10,
            aside_limit=10,
            accounts=[self.account],
            max_entries_per_turn=50,
            lease=_LEASE,
            claim_timeout=_CLAIM_TIMEOUT,
            now=self.clock,
        )
        for turn in claimed:
            assert turn.session_id == self.session_id, f"{turn.session_id} waits, {self.session_id} is on stage"
            if not self._receive_at_reception(turn):
                self.turn = turn
        self._deliver()

    def _receive_at_reception(self, turn: ClaimedTurn) -> bool:
        terms = self.stage.config.pairing_terms
        found = materials.gather(turn=turn, max_history=1, refused_for=terms.refused_for, now=self.clock)
        assert found.bot is not None
        decisions = gate(turn, found, found.bot)
        first = turn.entries[0]
        if any(decision.verdict is Verdict.PAIR for decision in decisions.values()):
            reasons = {pk: decision.reason.value for pk, decision in decisions.items()}
            return reception.ask(turn=turn, bot=found.bot, reasons=reasons, terms=terms, now=self.clock)
        if first.command:
            return reception.answer(turn=turn, bot=found.bot, decision=decisions[first.id], terms=terms, now=self.clock)
        return False

    def _answer(self, line: Line) -> None:
        turn = self._claimed()
        self._pass(1.5, 9.0)
        if self.stage.chance.random() < 0.06:
            self._pass(15, 70)
        late_after = timedelta(0) if line.mark == "<h" else timedelta(hours=6)
        result = Result(parts=(line.text,), text=line.text, agent=self.desk.agent, agent_version=1)
        assert finishing.finish(turn=turn, result=result, late_after=late_after, now=self.clock)
        self._deliver(line.mark)

    def _claimed(self) -> ClaimedTurn:
        self._claim()
        turn, self.turn = self.turn, None
        assert turn is not None, f"{self.person.name}: there is nothing to answer"
        return turn

    def _deliver(self, mark: str = "<") -> None:
        """Send what waits; ``mark`` says how the platform takes it."""
        worker_id = self.stage.worker_id
        self._pass(0.2, 0.9)
        while claims := outbox.claim(
            worker_id=worker_id,
            accounts=[self.account],
            limit=20,
            lease=_LEASE,
            late_after=timedelta(hours=6),
            now=self.clock,
        ):
            for claimed in claims:
                outbox_id = claimed.message.outbox_id
                match mark:
                    case "<?":
                        error = "The connection was cut after the request was sent: ReadTimeout."
                        outbox.mark_unknown(outbox_id=outbox_id, worker_id=worker_id, error=error, now=self.clock)
                    case "<x":
                        error = "Forbidden: bot was blocked by the user"
                        outbox.mark_gone(outbox_id=outbox_id, worker_id=worker_id, error=error)
                    case "<w":
                        error = "Too Many Requests: retry after 3600"
                        until = self.stage.now + timedelta(hours=1)
                        outbox.wait(
                            outbox_id=outbox_id,
                            worker_id=worker_id,
                            error=error,
                            until=until,
                            is_attempt=False,
                            now=self.clock,
                        )
                    case _:
                        receipt = SendReceipt(platform_message_id=str(9_000 + outbox_id))
                        outbox.mark_sent(outbox_id=outbox_id, worker_id=worker_id, receipt=receipt, now=self.clock)

    def _keep_running(self, line: Line) -> None:
        turn = self._claimed()
        turns.renew(worker_id=self.stage.worker_id, turn_ids=[turn.id], lease=self.stage.alive, now=self.stage.now)

    def _wait_an_hour(self, line: Line) -> None:
        self._pass(3_600, 5_400)

    # -- failures ----

    def _fail_once(self, line: Line) -> None:
        self._end_badly(self._claimed(), story.TROUBLES[line.text])
        self._go_to_next_try()

    def _fail(self, line: Line) -> None:
        """Until nothing is left to try."""
        while self.turn is not None:
            turn = self._claimed()
            if line.text == "poison":
                self._pass(31, 40)
                turns.abandon_expired(max_worker_deaths=self.stage.config.max_worker_deaths, now=self.clock)
            else:
                self._end_badly(turn, story.TROUBLES[line.text])
            if self._go_to_next_try():
                self._claim()

    def _end_badly(self, turn: ClaimedTurn, trouble: Trouble) -> None:
        self._pass(2, 12)
        _fail_turn(turn, trouble, config=self.stage.config, now=self.clock)
        self._deliver()

    def _go_to_next_try(self) -> bool:
        waiting = self._entries().filter(state=EntryState.PENDING).order_by("available_at", "pk")
        due = waiting.values_list("available_at", flat=True).first()
        if due is None:
            return False
        self.clock = max(self.clock, due)
        return True

    # -- staff ----

    def _staff_say(self, line: Line) -> None:
        self._pass(60, 400)
        self.stage.messages += 1
        handling.reply(
            session_id=self.session_id,
            text=line.text,
            parts=(line.text,),
            idempotency_key=f"demo-{self.clock.timestamp()}-{self.stage.messages}",
            actor=_staff(line.name),
            now=self.clock,
        )
        self._deliver()

    def _note(self, line: Line) -> None:
        self._pass(20, 90)
        handling.note(session_id=self.session_id, text=line.text, actor=_staff(line.name), now=self.clock)

    def _mirror(self, line: Line) -> None:
        self._pass(60, 600)
        mirror.append(user_id=self.session_id, text=line.text, source_label=line.name, now=self.clock)

    def _staff_act(self, line: Line) -> None:
        self._pass(30, 200)
        actor, reason, now = _staff(line.name), line.text, self.clock
        platform, user_id = self.desk.platform, self.person.user_id
        match line.verb:
            case "human" | "paused" | "bot":
                handler = Handler(line.verb)
                handling.hand_to(session_id=self.session_id, handler=handler, actor=actor, reason=reason, now=now)
                self.turn = None  # a turn that ran is cancelled
            case "link":
                identity.link(
                    platform=platform,
                    user_id=user_id,
                    unified_user_id=line.object,
                    proof=Proof.STAFF,
                    actor=actor,
                    reason=reason,
                    now=now,
                )
            case "unlink":
                identity.unlink(platform=platform, user_id=user_id, actor=actor, reason=reason, now=now)
            case "retry":
                dlq.retry(item_id=self._dead_letter(), actor=actor, reason=reason, now=now)
            case "discard":
                dlq.discard(item_id=self._dead_letter(), actor=actor, reason=reason, now=now)
            case verb:
                self._decide(verb, actor=actor, reason=reason)
        self._deliver()

    def _decide(self, verb: str, *, actor: Actor, reason: str) -> None:
        wanted = PairingState.APPROVED if verb == "revoke" else PairingState.WAITING
        request = Pairing.objects.get(account=self.account, contact__platform_user_id=self.person.user_id, state=wanted)
        if verb == "verify":
            code = codes.keyring().of(request.nonce)
            terms = self.stage.config.pairing_terms
            pairing.verify(account=self.account, code=code, actor=actor, terms=terms, now=self.clock)
            return
        acts: dict[str, Callable[..., object]] = {
            "approve": pairing.approve,
            "deny": pairing.deny,
            "block": pairing.block,
            "revoke": pairing.revoke,
        }
        acts[verb](request_id=request.pk, actor=actor, reason=reason, now=self.clock)

    def _dead_letter(self) -> int:
        return DLQItem.objects.values_list("pk", flat=True).get(entry__in=self._entries(), state=DLQState.OPEN)

    def _entries(self) -> QuerySet[JournalEntry]:
        return JournalEntry.objects.filter(session__session_id=self.session_id)
