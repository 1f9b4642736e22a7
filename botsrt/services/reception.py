"""What the runtime answers itself, without an agent: asking for access, commands of the chat, presses of its buttons.

Each function ends a turn and does what was asked in the same commit. All return False when the turn was no longer
running: then nothing was changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from django.db.models import F

from botsrt.core import commands
from botsrt.core.access import Decision, Reason, Verdict
from botsrt.core.actors import SYSTEM, Actor
from botsrt.core.commands import Press
from botsrt.core.errors import BotsError, TooManyAttempts
from botsrt.core.messages import Button
from botsrt.core.pairing_codes import PLACEHOLDER, Terms, new_nonce
from botsrt.core.states import (
    ChatType,
    Handler,
    HistoryKind,
    LinkConfirmation,
    PairingPurpose,
    PairingState,
    Standing,
)
from botsrt.core.text import one_line
from botsrt.models import BotSession, Contact, Pairing
from botsrt.services import (
    bots,
    codes,
    contexts,
    control,
    entrance,
    finishing,
    identity,
    news,
    notices,
    pairing,
    sessions,
    turns,
)
from botsrt.services.bots import BotView
from botsrt.services.claimed import ClaimedEntry, ClaimedTurn
from botsrt.services.contexts import Earlier
from botsrt.services.finishing import Result
from botsrt.services.notices import Address

_ASK = (
    "Hello! This bot answers people it knows. Your request has been passed on.\n"
    f"Your pairing code is {PLACEHOLDER} – give it to the person who invited you. "
    "It is valid for {minutes} minutes; your message will be answered once you have access."
)
_FULL = "Hello! Many people are asking for access at the moment. Please try again later."
_LINK_DIRECT_ONLY = "Please send this to me in a direct message."
_LINK_ASK = (
    f"To connect another account of yours with this one, send /link {PLACEHOLDER} to the bot from there, within "
    "{minutes} minutes. Show the code to nobody."
)
_LINK_LIMIT = "A request of yours still waits. Please try again later."
_LINK_BAD = "This code is not valid."
_LINK_SELF = "You asked for this code from here. Send it from your other account."
_LINK_OVER = "This code is no longer valid. Send /link from your other account for a new one."
_LINK_WAITS = "Thank you. Your accounts will be connected once a member of the team has confirmed it."
_LINK_USED = "Thank you, we have this already."
_HELP = "What you can ask of me here:"
_UNKNOWN = "I do not know /{name} any more."
_STOPPED = "Stopped."
_NOTHING_RUNS = "Nothing is running."
_RUNS = "I have been working on an answer for {seconds} s."
_HANDLED = {
    Handler.HUMAN: "A member of the team has this conversation in hand.",
    Handler.PAUSED: "I am paused at the moment.",
}
_RETRY = "I try your last failed message again."
_NOTHING_FAILED = "Nothing of yours has failed."
_NEW = "A new conversation begins. I do not look at what we said before."
_EARLIER = "Our earlier conversations. Send /resume and a number to go on with one:"
_NOTHING_EARLIER = "There is no earlier conversation of ours."
_NO_SUCH_NUMBER = "I do not know which one you mean. Send /resume for the list, then /resume and a number from it."
_RESUMED = "We go on with the conversation of {conversation}"
_PRESS_FORBIDDEN = "Only an owner of this bot can decide about that."


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What every answer needs."""

    turn: ClaimedTurn
    bot: BotView
    terms: Terms
    now: datetime

    @property
    def address(self) -> Address:
        """Where the turn came from."""
        return Address(
            platform=self.turn.platform,
            account=self.turn.account,
            channel_id=self.turn.route.channel_id,
            thread_id=self.turn.route.thread_id,
            reply_to=self.turn.route.reply_to,
            session_pk=self.turn.session_pk,
        )

    @property
    def minutes(self) -> int:
        return int(self.terms.valid_for.total_seconds() // 60)


# -- a stranger writes ----


def ask(*, turn: ClaimedTurn, bot: BotView, reasons: Mapping[int, str], terms: Terms, now: datetime) -> bool:
    """A contact without access wrote directly: the first message begins a request and is held; more are counted.

    Args:
        reasons: entry id → reason code of the gate, for all entries of the turn.
    """
    desk = Desk(turn=turn, bot=bot, terms=terms, now=now)
    asking = [entry for entry in turn.entries if reasons[entry.id] in (Reason.PAIRING_REQUIRED, Reason.PAIRING_WAITING)]
    try:
        return finishing.conclude(turn=turn, act=lambda: _ask(desk, asking, reasons), now=now)
    except _DecidedMeanwhileError:
        return turns.release(turn_id=turn.id, available_at=now, now=now)


class _DecidedMeanwhileError(Exception):
    """Staff let the contact in, or kept them out, after the gate looked."""


def _ask(desk: Desk, asking: Sequence[ClaimedEntry], reasons: Mapping[int, str]) -> Result:
    first = asking[0]
    pairing.lock(desk.turn.account)
    if _is_decided(desk, first.root_id):
        raise _DecidedMeanwhileError
    request = _waiting_request(desk, first.root_id)
    if request is not None and request.purpose == PairingPurpose.LINK:  # they had access when they asked for that
        pairing.close_expired(request, now=desk.now)
        request = None
    if request is not None:
        news.changed("pairings", [request.pk])
        Pairing.objects.filter(pk=request.pk).update(asked_count=F("asked_count") + len(asking))
        if desk.now - request.code_sent_at >= desk.terms.resend_after:
            _send_code(desk, request)
        return Result(dropped=reasons)
    if _is_full(desk):
        _turn_away(desk, first.root_id)
        return Result(dropped={**reasons, **{entry.id: pairing.TURNED_AWAY for entry in asking}})
    request = _new_request(desk, first, purpose=PairingPurpose.ACCESS, asked_count=len(asking))
    _send_code(desk, request)
    _tell_owners(desk, request)
    others = {entry_id: reason for entry_id, reason in reasons.items() if entry_id != first.id}
    return Result(dropped=others, held={first.id: Reason.PAIRING_WAITING})


def _is_decided(desk: Desk, contact_id: int) -> bool:
    found = pairing.standings(
        account=desk.turn.account, contact_ids=[contact_id], refused_for=desk.terms.refused_for, now=desk.now
    )
    is_asking = found.get(contact_id, Standing.UNKNOWN) in (Standing.UNKNOWN, Standing.WAITING)
    return not is_asking or Contact.objects.filter(pk=contact_id, is_blocked=True).exists()


def _turn_away(desk: Desk, contact_id: int) -> None:
    """Say so politely, as often as a code would be sent: the key changes that often."""
    period = int(desk.now.timestamp() // max(desk.terms.resend_after.total_seconds(), 1))
    notices.tell(desk.address, _FULL, key=f"pairing-full:{desk.turn.account}:{contact_id}:{period}", now=desk.now)


def _waiting_request(desk: Desk, contact_id: int) -> Pairing | None:
    """The contact's request that waits; one whose time is over is closed on the way."""
    waiting = Pairing.objects.filter(state=PairingState.WAITING, account=desk.turn.account, contact=contact_id).first()
    if waiting is not None and waiting.expires_at <= desk.now:
        pairing.close_expired(waiting, now=desk.now)
        return None
    return waiting


def _is_full(desk: Desk) -> bool:
    waiting = Pairing.objects.filter(account=desk.turn.account, state=PairingState.WAITING, expires_at__gt=desk.now)
    return waiting.count() >= desk.terms.max_waiting


def _new_request(desk: Desk, entry: ClaimedEntry, *, purpose: PairingPurpose, asked_count: int = 1) -> Pairing:
    nonce = new_nonce()
    news.changed("pairings")
    account = desk.turn.account
    return Pairing.objects.create(
        platform=desk.turn.platform,
        account=account,
        contact_id=entry.root_id,
        purpose=purpose,
        nonce=nonce,
        code_hash=codes.hash_of(nonce, account=account, contact_id=entry.root_id),
        created_at=desk.now,
        expires_at=desk.now + desk.terms.valid_for,
        code_sent_at=desk.now,
        session_id=desk.turn.session_pk,
        channel_id=desk.turn.route.channel_id,
        thread_id=desk.turn.route.thread_id,
        entry_id=entry.id if purpose == PairingPurpose.ACCESS else None,
        asked_count=asked_count,
        first_words=one_line(entry.message.text, max_chars=200),
    )


def _send_code(desk: Desk, request: Pairing) -> None:
    Pairing.objects.filter(pk=request.pk).update(code_sent_at=desk.now)
    text = _ASK.format(minutes=desk.minutes)
    key = f"pairing-code:{request.pk}:{desk.now.timestamp():.6f}"
    notices.tell(desk.address, text, key=key, request=request, now=desk.now)


def _tell_owners(desk: Desk, request: Pairing) -> None:
    """One notice of the request to each owner of the bot, with the buttons to decide."""
    contact = Contact.objects.get(pk=request.contact_id)
    name = one_line(contact.display_name or contact.user_name or contact.platform_user_id, max_chars=80)
    text = (
        f"{name} ({contact}) asks for access to {request.account}.\n"
        f"First words: {request.first_words or '(no text)'}\n"
        f"Request {request.pk}; the site has the rest."
    )
    buttons = [
        Button(label=act.capitalize(), data=Press(act=act, request_id=request.pk).data) for act in ("approve", "deny")
    ]
    for owner in sorted(desk.bot.owners):
        address = notices.direct_address(platform=request.platform, account=request.account, user_id=owner)
        notices.tell(address, text, key=f"pairing-owner:{request.pk}:{owner}"[:200], buttons=buttons, now=desk.now)


# -- commands and buttons ----


def answer(*, turn: ClaimedTurn, bot: BotView, decision: Decision, terms: Terms, now: datetime) -> bool:
    """Do what the turn's one entry, a command or a press, asks for, and say what became of it.

    Only ``/link CODE`` may be sent by a contact without access: it may prove that they have it elsewhere.
    """
    desk = Desk(turn=turn, bot=bot, terms=terms, now=now)
    entry = turn.entries[0]
    acts: dict[str, Callable[[Desk, ClaimedEntry, Decision], Result]] = {
        "help": _help,
        "link": _link,
        "new": _new,
        "resume": _resume,
        "retry": _retry,
        "status": _status,
        "stop": _stop,
        "whoami": _whoami,
        commands.BUTTON: _press,
    }
    return finishing.conclude(turn=turn, act=lambda: acts.get(entry.command, _unknown)(desk, entry, decision), now=now)


def say(*, turn: ClaimedTurn, text: str, parts: tuple[str, ...], now: datetime) -> bool:
    """Answer the turn's one entry, a command of somebody else's, with what that said; an empty text says nothing.

    Args:
        parts: ``text``, cut for the platform.
    """
    return finishing.conclude(turn=turn, act=lambda: Result(parts=parts, text=text, kind=HistoryKind.COMMAND), now=now)


def is_open_to_strangers(entry: ClaimedEntry) -> bool:
    """Whether the command may be sent without access."""
    return entry.command == "link" and bool(entry.sealed_code)


def _says(text: str, request: Pairing | None = None) -> Result:
    return Result(parts=(text,), text=text, kind=HistoryKind.COMMAND, request=request)


def _help(desk: Desk, entry: ClaimedEntry, decision: Decision) -> Result:
    is_direct = entry.message.chat_type == ChatType.DIRECT
    is_owner = entrance.is_owner(entry, desk.bot)
    usable = [
        kind
        for kind in commands.kinds()
        if (is_direct or not kind.is_direct_only) and (is_owner or not kind.is_for_owners)
    ]
    return _says("\n".join([_HELP, *(f"/{kind.name} – {kind.help}" for kind in usable)]))


def _unknown(desk: Desk, entry: ClaimedEntry, decision: Decision) -> Result:
    """It was a command when it came; the package that had it is gone."""
    return _says(_UNKNOWN.format(name=entry.command))


def _stop(desk: Desk, entry: ClaimedEntry, decision: Decision) -> Result:
    stopped = control.stop(session_pk=desk.turn.session_pk, before=entry.id, now=desk.now)
    return _says(_STOPPED if stopped else _NOTHING_RUNS)


def _status(desk: Desk, entry: ClaimedEntry, decision: Decision) -> Result:
    doing = control.doing(session_pk=desk.turn.session_pk)
    if doing.handler != Handler.BOT:
        lines = [_HANDLED[doing.handler]]
    elif doing.running_since is None:
        lines = [_NOTHING_RUNS]
    else:
        lines = [_RUNS.format(seconds=max(0, int((desk.now - doing.running_since).total_seconds())))]
    if doing.waiting:
        lines.append("1 message waits." if doing.waiting == 1 else f"{doing.waiting} messages wait.")
    return _says(" ".join(lines))


def _whoami(desk: Desk, entry: ClaimedEntry, decision: Decision) -> Result:
    sender = entry.message.sender
    name = one_line(sender.display_name or sender.user_name, max_chars=80)
    who = f"{name} ({desk.turn.platform}:{sender.user_id})" if name else f"{desk.turn.platform}:{sender.user_id}"
    lines = [f"You are {who}."]
    # Who somebody is elsewhere is nobody's business in a group.
    if entry.message.chat_type == ChatType.DIRECT and (person := identity.persons_of([entry.root_id])):
        lines.append(f"Your accounts are connected as {person[entry.root_id]}.")
    return _says(" ".join(lines))


def _retry(desk: Desk, entry: ClaimedEntry, decision: Decision) -> Result:
    actor = Actor(name=f"contact:{desk.turn.platform}:{entry.message.sender.user_id}"[:150])
    did = control.retry(session_pk=desk.turn.session_pk, root_id=entry.root_id, actor=actor, now=desk.now)
    return _says(_RETRY if did else _NOTHING_FAILED)


def _new(desk: Desk, entry: ClaimedEntry, decision: Decision) -> Result:
    session = BotSession.objects.select_related("contact").get(pk=desk.turn.session_pk)
    sessions.start_new(session=session, turn_id=desk.turn.id, now=desk.now)
    return _says(_NEW)


def _resume(desk: Desk, entry: ClaimedEntry, decision: Decision) -> Result:
    if entry.message.chat_type != ChatType.DIRECT:
        return _says(_LINK_DIRECT_ONLY)
    session = BotSession.objects.select_related("contact").get(pk=desk.turn.session_pk)
    offered = contexts.earlier(session=session)
    if not offered:
        return _says(_NOTHING_EARLIER)
    asked = commands.parse(entry.message.text)
    number = asked.argument if asked else ""
    if not number:
        lines = [f"{place}. {_known_by(desk, one)}" for place, one in enumerate(offered, start=1)]
        return _says("\n".join([_EARLIER, *lines]))
    chosen = next((one for place, one in enumerate(offered, start=1) if str(place) == number), None)
    if chosen is None:
        return _says(_NO_SUCH_NUMBER)
    contexts.go_on_with(chosen, session=session, turn_id=desk.turn.id, now=desk.now)
    return _says(_RESUMED.format(conversation=_known_by(desk, chosen)))


def _known_by(desk: Desk, one: Earlier) -> str:
    """An earlier conversation in the words of whoever was there, by the clock of the bot."""
    at = one.began_at.astimezone(desk.bot.resets.zone)
    return f"{at.day} {at:%B %Y}, {at:%H:%M}: {one.words}"


def _link(desk: Desk, entry: ClaimedEntry, decision: Decision) -> Result:
    if entry.message.chat_type != ChatType.DIRECT:
        return _says(_LINK_DIRECT_ONLY)
    if commands.parse(entry.message.text) == commands.Command(name="link"):
        return _ask_for_link(desk, entry)
    guesser = f"contact:{entry.root_id}"
    try:
        pairing.check_may_guess(guesser=guesser, now=desk.now)
    except TooManyAttempts as error:
        return _says(str(error))
    # Requests of any bot: the code is given back on another platform.
    searched = Pairing.objects.filter(purpose=PairingPurpose.LINK).order_by("-id")[:1_000]
    request = codes.match(entry.sealed_code, searched) if entry.sealed_code else None
    if request is None:
        pairing.count_wrong_code(guesser=guesser, terms=desk.terms, now=desk.now)
        return _says(_LINK_BAD)
    return _give_back(desk, entry, decision, request)


def _ask_for_link(desk: Desk, entry: ClaimedEntry) -> Result:
    request = _waiting_request(desk, entry.root_id)
    if request is None and _is_full(desk):
        return _says(_FULL)
    if request is not None and request.purpose != PairingPurpose.LINK:
        return _says(_LINK_LIMIT)
    if request is not None and request.other_id is not None:
        return _says(_LINK_WAITS)
    if request is None:
        request = _new_request(desk, entry, purpose=PairingPurpose.LINK)
    return _says(_LINK_ASK.format(minutes=desk.minutes), request)


def _give_back(desk: Desk, entry: ClaimedEntry, decision: Decision, request: Pairing) -> Result:
    """The code of ``request`` came from another contact: both are one human."""
    if request.state != PairingState.WAITING or request.expires_at <= desk.now:
        return _says(_LINK_OVER)
    if request.contact_id == entry.root_id:
        return _says(_LINK_SELF)
    given = Pairing.objects.filter(pk=request.pk, state=PairingState.WAITING, other=None).update(
        other=entry.root_id,
        other_account=desk.turn.account,
        other_session=desk.turn.session_pk,
        other_channel_id=desk.turn.route.channel_id,
        other_needs_access=decision.verdict is Verdict.PAIR,
        other_at=desk.now,
        expires_at=desk.now + desk.terms.refused_for,  # the code has done its work; staff may take their time
    )
    if not given:
        return _says(_LINK_USED)
    news.changed("pairings", [request.pk])
    if decision.is_allowed and _link_alone(desk.bot, request.account):
        with suppress(BotsError):  # staff decide where they are two persons already
            reason = "proved by code; both bots confirm links alone"
            pairing.approve(request_id=request.pk, actor=SYSTEM, reason=reason, now=desk.now)
            return Result(dropped={entry.id: "linked"})  # both sides are told
    return _says(_LINK_WAITS)


def _link_alone(bot: BotView, other_account: str) -> bool:
    other = bots.views(accounts=[other_account]).get(other_account)
    return bot.link == LinkConfirmation.AUTO and other is not None and other.link == LinkConfirmation.AUTO


def _press(desk: Desk, entry: ClaimedEntry, decision: Decision) -> Result:
    press = commands.parse_press(entry.message.text)
    assert press is not None  # the journal saw that it is one
    request = Pairing.objects.filter(pk=press.request_id, account=desk.turn.account).first()
    if request is None or not entrance.is_owner(entry, desk.bot):
        return _says(_PRESS_FORBIDDEN)
    actor = Actor(name=f"owner:{desk.turn.platform}:{entry.message.sender.user_id}"[:150])
    try:
        if press.act == "approve":
            pairing.approve(request_id=request.pk, actor=actor, reason="approved by button", now=desk.now)
            return _says(f"Approved: request {request.pk}.")
        pairing.deny(request_id=request.pk, actor=actor, reason="denied by button", now=desk.now)
        return _says(f"Denied: request {request.pk}.")
    except BotsError as error:
        return _says(str(error))
