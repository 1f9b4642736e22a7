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
    "hooks/<platform:platform>/<account:account>/": page("/hooks/telegram/shop/", both=Need.NOTHING),
}

# -- the admin ----

#: Tables of the runtime, each with a list and a page per row.
RAW: dict[str, Act] = {
    "adapterstate": Act.READ,
    "agentprofile": Act.READ,
    "auditevent": Act.AUDIT,
    "bot": Act.READ,
    "botsession": Act.READ,
    "contact": Act.READ,
    "dlqitem": Act.READ,
    "historymessage": Act.READ,
    "journalentry": Act.READ,
    "outboxmessage": Act.READ,
    "turn": Act.READ,
    "worker": Act.READ,
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
    "ws/try/<account:account>/": ("/ws/try/shop/", Act.TRY),
    "": ("/ws/nothing/", None),
}
