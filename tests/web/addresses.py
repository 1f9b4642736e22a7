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
    LEADS_TO_SIGN_IN = "everybody ends at the sign-in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    path: str
    get: Act | Need
    post: Act | Need
    sudo: bool = False


def page(
    path: str,
    *,
    get: Act | Need = Need.NOT_POSSIBLE,
    post: Act | Need = Need.NOT_POSSIBLE,
    both: Act | Need | None = None,
    sudo: bool = False,
) -> Page:
    return Page(path=path, get=both or get, post=both or post, sudo=sudo)


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

#: Websocket route → an address that fits, and the act it needs; None: nobody gets in.
SOCKETS: dict[str, tuple[str, Act | None]] = {
    "ws/try/<account:account>/": ("/ws/try/shop/", Act.TRY),
    "": ("/ws/nothing/", None),
}
