"""``manage.py pairing``: strangers who ask for access, and contacts who say that they are one human."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.utils import timezone

from botsrt import conf
from botsrt.core.states import PairingPurpose, PairingState
from botsrt.core.text import one_line
from botsrt.management import cli
from botsrt.models import Pairing
from botsrt.services import pairing


class Command(cli.VerbCommand):
    help = "Let people in, keep them out, and see why somebody gets no answer."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        verb = add("list", "Requests, newest first; waiting ones unless another state is named.", prints_data=True)
        verb.add_argument("--state", choices=[*PairingState, "all"], default=PairingState.WAITING)
        verb.add_argument("--account")
        cli.add_paging(verb)
        verb = add("verify", "Let somebody in who gave you the code that only they had seen.", prints_data=True)
        verb.add_argument("account")
        verb.add_argument("code")
        verb.add_argument("--person", default="", metavar="ID", help="also say who it is")
        verb = add("approve", "Let somebody in without the code, or confirm a link.", prints_data=True)
        verb.add_argument("id", type=cli.row_id)
        verb.add_argument("--reason", required=True)
        verb.add_argument("--person", default="", metavar="ID", help="also say who it is")
        verb.add_argument("--again", action="store_true", help="also where it was denied, revoked or blocked before")
        for name, help_text in (
            ("deny", "Refuse a request; its contact is told."),
            ("block", "Refuse or take back, and drop all that the contact writes to any bot, silently."),
            ("revoke", "Take access back: running turns stop, queued replies are withdrawn."),
        ):
            verb = add(name, help_text, prints_data=True)
            verb.add_argument("id", type=cli.row_id)
            verb.add_argument("--reason", default="")
        verb = add("explain", "What would happen if this user wrote to this bot now.", prints_data=True)
        verb.add_argument("account")
        verb.add_argument("user_id")

    def do_list(self, options: dict[str, Any]) -> None:
        rows = Pairing.objects.select_related("contact", "other")
        if options["state"] != "all":
            rows = rows.filter(state=options["state"])
        if options["account"]:
            rows = rows.filter(account=options["account"])
        self.table(
            options,
            [_row(request) for request in cli.page(rows, options)],
            empty="No requests." if options["state"] == "all" else f"No {options['state']} requests.",
            whole=("account", "contact"),
            only_json=("state", "other", "proof", "decided_by", "decided", "reason"),
        )
        accounts = [options["account"]] if options["account"] else None
        if turned_away := pairing.turned_away(accounts=accounts, since=timezone.now() - timedelta(hours=1)):
            self.stderr.write(f"{turned_away} messages were turned away in the last hour: too many requests waited.")

    def do_verify(self, options: dict[str, Any]) -> None:
        request = pairing.verify(
            account=options["account"],
            code=options["code"],
            person=options["person"],
            actor=cli.actor(),
            terms=conf.load().pairing_terms,
            now=timezone.now(),
        )
        self._tell(options, request, "has access now; the first message is being answered.")

    def do_approve(self, options: dict[str, Any]) -> None:
        request = pairing.approve(
            request_id=options["id"],
            person=options["person"],
            again=options["again"],
            actor=cli.actor(),
            reason=options["reason"],
            now=timezone.now(),
        )
        is_link = request.purpose == PairingPurpose.LINK
        said = f"and {request.other} are one person now." if is_link else "has access now."
        self._tell(options, request, said)

    def do_deny(self, options: dict[str, Any]) -> None:
        self._tell(options, self._act(pairing.deny, options), "was refused and told so.")

    def do_block(self, options: dict[str, Any]) -> None:
        self._tell(options, self._act(pairing.block, options), "is blocked.")

    def do_revoke(self, options: dict[str, Any]) -> None:
        self._tell(options, self._act(pairing.revoke, options), "has no access any more and was told so.")

    def do_explain(self, options: dict[str, Any]) -> None:
        decision = pairing.explain(
            account=options["account"],
            user_id=options["user_id"],
            terms=conf.load().pairing_terms,
            now=timezone.now(),
        )
        self.show(
            options,
            {"verdict": decision.verdict.value, "reason": decision.reason.value, "meaning": decision.meaning},
        )

    def _act(self, service: Callable[..., Pairing], options: dict[str, Any]) -> Pairing:
        return service(request_id=options["id"], actor=cli.actor(), reason=options["reason"], now=timezone.now())

    def _tell(self, options: dict[str, Any], request: Pairing, said: str) -> None:
        if options["json"]:
            self.print_json(_row(request))
        else:
            self.say(f"{request.contact} {said}")


def _row(request: Pairing) -> dict[str, Any]:
    contact = request.contact
    return {
        "id": request.pk,
        "for": request.purpose,
        "account": request.account,
        "contact": str(contact),
        "name": one_line(contact.display_name or contact.user_name),
        "state": request.state,
        "asked": request.asked_count,
        "since": request.created_at,
        "expires": request.expires_at,
        "first_words": one_line(request.first_words),
        "other": str(request.other) if request.other else "",
        "proof": request.proof,
        "decided_by": request.decided_by,
        "decided": request.decided_at,
        "reason": request.reason,
    }
