"""What tests of pages share: reading a page, asking and doing an act as a browser would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape

from django.test import Client

#: Text that must come out harmless wherever it is shown.
HOSTILE = "<script>alert(1)</script>\u202e"
HARMLESS = "&lt;script&gt;alert(1)&lt;/script&gt;\u27e6U+202E\u27e7"

HTMX = {"HX-Request": "true"}


def read(client: Client, path: str, *, status: int = 200, part: bool = False) -> str:
    """The page at ``path``, or the part of it that scripts fetch."""
    response = client.get(path, headers=HTMX if part else {})
    assert response.status_code == status, f"{path}: {response.status_code}"
    html = str(response.content.decode())
    assert ("<html" in html) is not part
    return html


def do(client: Client, path: str, *, status: int = 302, fields: Mapping[str, str] | None = None, **more: str) -> str:
    """Post a form without script; the page that comes, or where one is sent."""
    response = client.post(path, {**(fields or {}), **more})
    assert response.status_code == status, response.content.decode()[:3_000]
    return str(response.content.decode()) if status != 302 else str(response["Location"])


def said(client: Client) -> list[str]:
    """The messages that the next page shows."""
    html = client.get("/workers/").content.decode()
    return [unescape(text) for text in re.findall(r'<p class="note tone-\w+" role="\w+">(.*?)</p>', html, re.DOTALL)]


def rows(html: str) -> list[str]:
    """The ids of the rows that a list shows, as they stand."""
    return re.findall(r'<li class="row[^"]*" id="\w+-(\w+)"', html)


def badges(html: str) -> list[str]:
    return re.findall(r'<span class="badge tone-\w+"[^>]*>([^<]+)</span>', html)


def problem(html: str) -> str:
    """What an act that was not done says."""
    found = re.search(r'<p class="note tone-(?:bad|warn)" role="alert"[^>]*>(.*?)</p>', html, re.DOTALL)
    return unescape(found[1]) if found else ""


def title(html: str) -> str:
    found = re.search(r'<h1 id="question-title">(.*?)</h1>', html)
    return unescape(found[1]) if found else ""
