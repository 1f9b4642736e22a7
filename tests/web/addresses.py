"""Every address of the site and who may do what there. The walk (``test_urls.py``) compares it with the real thing.

A new page is one line: its route as ``urls.py`` has it, an address that fits, and the act that reading (``get``) and
sending (``post``) need. What is not named is answered with 405. ``sudo``: the password is asked for again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from praisonweb.dashboard.access import Act


class Need(Enum):
    """What is needed where it is not an act of staff."""

    NOTHING = "open to strangers"
    SIGN_IN = "signed in, staff or not"
    NOT_POSSIBLE = "405 for everybody"
    NOBODY = "403 for everybody"
    LEADS_TO_SIGN_IN = "everybody ends at the sign-in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    path: str
    get: Act | Need
    post: Act | Need
    inside: Act | None = None
    sudo: bool = False


def page(
    path: str,
    *,
    get: Act | Need = Need.NOT_POSSIBLE,
    post: Act | Need = Need.NOT_POSSIBLE,
    both: Act | Need | None = None,
    inside: Act | None = None,
    sudo: bool = False,
) -> Page:
    """One row. ``both``: reading and sending need the same. ``inside``: needed to hear even that a method is wrong."""
    return Page(path=path, get=both or get, post=both or post, inside=inside, sudo=sudo)


PAGES: dict[str, Page] = {
    "": page("/", get=Act.READ),
    "try/": page("/try/", get=Act.TRY),
    "try/<account:account>/": page("/try/shop/", get=Act.TRY),
    "try/<account:account>/send/": page("/try/shop/send/", post=Act.TRY),
    "account/sign-in/": page("/account/sign-in/", both=Need.NOTHING),
    "account/sign-in/code/": page("/account/sign-in/code/", both=Need.LEADS_TO_SIGN_IN),
    "account/sign-out/": page("/account/sign-out/", post=Need.LEADS_TO_SIGN_IN),
    "account/password/": page("/account/password/", both=Need.SIGN_IN),
    "account/confirm/": page("/account/confirm/", both=Need.SIGN_IN),
    "account/second-factor/": page("/account/second-factor/", get=Need.SIGN_IN),
    "account/second-factor/set-up/": page("/account/second-factor/set-up/", both=Need.SIGN_IN, sudo=True),
    "account/second-factor/recovery-codes/": page(
        "/account/second-factor/recovery-codes/", post=Need.SIGN_IN, sudo=True
    ),
    "account/second-factor/off/": page("/account/second-factor/off/", both=Need.SIGN_IN),
    "healthz": page("/healthz", get=Need.NOTHING),
    "readyz": page("/readyz", get=Need.NOTHING),
    "metrics": page("/metrics", get=Need.NOTHING),  # but for its token, without which there is nothing
    "hooks/<platform:platform>/<account:account>/": page("/hooks/telegram/shop/", both=Need.NOTHING),
}

# -- the desk ----

#: A group of failures that there is not.
_GROUP = f"/dlq/groups/{'0' * 16}/"

PAGES |= {
    "find/": page("/find/?q=a", get=Act.READ),
    "charts/": page("/charts/", get=Act.READ),
    "journal/": page("/journal/", get=Act.READ),
    "journal/<id:entry_id>/": page("/journal/1/", get=Act.READ),
    "journal/replay/": page("/journal/replay/", both=Act.REPLAY),
    "journal/<id:entry_id>/replay/": page("/journal/1/replay/", both=Act.REPLAY),
    "dlq/": page("/dlq/", get=Act.READ),
    "dlq/<id:item_id>/": page("/dlq/1/", get=Act.READ),
    "dlq/groups/<fingerprint:fingerprint>/": page(_GROUP, get=Act.READ),
    "dlq/retry/": page("/dlq/retry/", both=Act.RETRY),
    "dlq/discard/": page("/dlq/discard/", both=Act.DISCARD),
    "deliveries/": page("/deliveries/", get=Act.READ),
    "deliveries/<id:outbox_id>/": page("/deliveries/1/", get=Act.READ),
    "deliveries/resolve/<slug:resolution>/": page("/deliveries/resolve/again/", both=Act.DECIDE_DELIVERIES),
    "deliveries/<id:outbox_id>/<slug:resolution>/": page("/deliveries/1/again/", both=Act.DECIDE_DELIVERIES),
    "alerts/": page("/alerts/", get=Act.READ),
    "alerts/<id:alert_id>/acknowledge/": page("/alerts/1/acknowledge/", both=Act.NOTE),
    "operations/": page("/operations/", get=Act.READ),
    "operations/<id:operation_id>/": page("/operations/1/", get=Act.READ),
    "operations/<id:operation_id>/stop/": page("/operations/1/stop/", both=Act.READ),  # and what its verb needs
    "operations/<id:operation_id>/resume/": page("/operations/1/resume/", both=Act.READ),
    "people/": page("/people/", get=Act.READ),
    "people/<id:session_pk>/": page("/people/1/", get=Act.READ),
    "people/<id:session_pk>/reply/": page("/people/1/reply/", post=Act.REPLY),
    "people/<id:session_pk>/note/": page("/people/1/note/", post=Act.NOTE),
    "people/<id:session_pk>/export/": page("/people/1/export/", both=Act.EXPORT, sudo=True),
    "people/<id:session_pk>/hand-to/<slug:handler>/": page("/people/1/hand-to/human/", both=Act.REPLY),
    "people/contacts/<id:contact_id>/link/": page("/people/contacts/1/link/", both=Act.LINK),
    "people/contacts/<id:contact_id>/unlink/": page("/people/contacts/1/unlink/", both=Act.LINK),
    "people/contacts/<id:contact_id>/data/": page("/people/contacts/1/data/", both=Act.EXPORT, sudo=True),
    "people/contacts/<id:contact_id>/erase/": page("/people/contacts/1/erase/", both=Act.PURGE, sudo=True),
    "retention/": page("/retention/", get=Act.PURGE),
    "retention/apply/": page("/retention/apply/", both=Act.PURGE, sudo=True),
    "pairings/": page("/pairings/", get=Act.READ),
    "pairings/verify/": page("/pairings/verify/", both=Act.PAIR),
    "bots/": page("/bots/", get=Act.READ),
    "bots/<account:account>/": page("/bots/shop/", get=Act.READ),
    "bots/+add/": page("/bots/+add/?platform=web", both=Act.CHANGE_BOTS),
    "bots/<account:account>/credentials/": page("/bots/shop/credentials/", both=Act.CREDENTIALS, sudo=True),
    "agents/": page("/agents/", get=Act.READ),
    "agents/<account:name>/": page("/agents/echo/", get=Act.READ),
    "agents/+add/": page("/agents/+add/?kind=echo", both=Act.AGENTS),
    "agents/<account:name>/edit/": page("/agents/echo/edit/", both=Act.AGENTS),
    "agents/<account:name>/remove/": page("/agents/echo/remove/", both=Act.AGENTS),
    "audit/": page("/audit/", get=Act.AUDIT),
    "workers/": page("/workers/", get=Act.READ),
}
for _verb, _act in {
    "retry": Act.RETRY,
    "edit": Act.RETRY,
    "discard": Act.DISCARD,
    "undo": Act.DISCARD,
    "note": Act.NOTE,
    "assign": Act.NOTE,
    "snooze": Act.NOTE,
}.items():
    PAGES[f"dlq/<id:item_id>/{_verb}/"] = page(f"/dlq/1/{_verb}/", both=_act)
    if _verb not in ("edit", "undo"):
        PAGES[f"dlq/groups/<fingerprint:fingerprint>/{_verb}/"] = page(f"{_GROUP}{_verb}/", both=_act)
for _verb in ("approve", "deny", "block", "revoke"):
    PAGES[f"pairings/<id:request_id>/{_verb}/"] = page(f"/pairings/1/{_verb}/", both=Act.PAIR)
for _verb in ("edit", "pause", "resume", "reconnect", "test", "remove"):
    # Of a bot that there is not: the walk changes nothing.
    PAGES[f"bots/<account:account>/{_verb}/"] = page(f"/bots/nobody/{_verb}/", both=Act.CHANGE_BOTS)

# -- the admin ----

#: Tables of the runtime, each with a list and a page per row.
RAW: dict[str, Act] = {
    "adapterstate": Act.READ,
    "agentprofile": Act.READ,
    "alert": Act.READ,
    "alertnotice": Act.READ,
    "auditevent": Act.AUDIT,
    "bot": Act.READ,
    "botsession": Act.READ,
    "bulkitem": Act.READ,
    "bulkoperation": Act.READ,
    "contact": Act.READ,
    "dlqitem": Act.READ,
    "historymessage": Act.READ,
    "hourcount": Act.READ,
    "identitylink": Act.READ,
    "journalentry": Act.READ,
    "keptfile": Act.READ,
    "outboxmessage": Act.READ,
    "pairing": Act.READ,
    "person": Act.READ,
    "personmerge": Act.READ,
    "preview": Act.READ,
    "recollection": Act.READ,
    "tally": Act.READ,
    "turn": Act.READ,
    "worker": Act.READ,
    "wrongcodes": Act.READ,
}

PAGES |= {
    "admin/": page("/admin/", both=Act.READ),
    "admin/login/": page("/admin/login/", both=Need.LEADS_TO_SIGN_IN),
    "admin/logout/": page("/admin/logout/", post=Need.LEADS_TO_SIGN_IN, inside=Act.READ),
    "admin/password_change/": page("/admin/password_change/", both=Act.READ),
    "admin/password_change/done/": page("/admin/password_change/done/", both=Act.READ),
    "admin/autocomplete/": page("/admin/autocomplete/", get=Need.NOBODY, inside=Act.READ),
    "admin/jsi18n/": page("/admin/jsi18n/", get=Act.READ, inside=Act.READ),
    "admin/r/<path:content_type_id>/<path:object_id>/": page("/admin/r/1/1/", both=Act.READ),
    "admin/^(?P<app_label>botsrt|auth)/$": page("/admin/botsrt/", both=Act.READ),
    "admin/(?P<url>.*)$": page("/admin/no/such/page/", both=Act.READ),
}
for _table, _act in RAW.items():
    PAGES |= {
        f"admin/botsrt/{_table}/": page(f"/admin/botsrt/{_table}/", both=_act),
        f"admin/botsrt/{_table}/<path:object_id>/change/": page(
            f"/admin/botsrt/{_table}/0/change/", get=_act, post=Need.NOBODY
        ),
    }
for _table in ("user", "group"):
    PAGES |= {
        f"admin/auth/{_table}/{_route}": page(f"/admin/auth/{_table}/{_path}", both=Act.USERS, sudo=True)
        for _route, _path in {
            "": "",
            "add/": "add/",
            "<path:object_id>/": "0/",
            "<path:object_id>/change/": "0/change/",
            "<path:object_id>/history/": "0/history/",
        }.items()
    }
PAGES |= {
    "admin/auth/user/<id>/password/": page("/admin/auth/user/0/password/", both=Act.USERS, sudo=True),
    "admin/auth/group/<path:object_id>/delete/": page("/admin/auth/group/0/delete/", both=Act.USERS, sudo=True),
}


# -- websockets ----

#: Websocket route → an address that fits, and the act it needs; None: nobody gets in.
SOCKETS: dict[str, tuple[str, Act | None]] = {
    "ws/live/": ("/ws/live/?topics=journal,dlq", Act.READ),
    "ws/try/<account:account>/": ("/ws/try/shop/", Act.TRY),
    "": ("/ws/nothing/", None),
}

#: What the page of a conversation may say over ``ws/live/`` → the act that it needs.
SIGNS: dict[str, Act] = {"reading": Act.READ, "typing": Act.REPLY}
