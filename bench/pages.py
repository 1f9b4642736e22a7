"""How long the server takes for every page of the site: ``python -m bench.pages`` prints one JSON line per page.

The database is the one of ``DATABASE_URL``: empty, or filled by ``bench.town`` before. The addresses are those of
``tests/web/addresses.py``, so that a new page is measured, too; beside them every filter of every list, pages far down,
and the first bytes of exports.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "praisonweb.settings")
os.environ["BOTSRT_ADAPTER_PACKAGES"] = "botsrt.adapters,bench.platforms"
os.environ.setdefault("LOG_LEVEL", "CRITICAL")
django.setup()

from django.apps import apps  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402

from bench import town  # noqa: E402
from botsrt.runtime import garbage  # noqa: E402
from praisonweb.dashboard.filters import Key, address  # noqa: E402
from praisonweb.dashboard.queries import audit, deliveries, dlq, journal, pairings, people  # noqa: E402
from tests.web.addresses import PAGES, Need  # noqa: E402

#: Requests of each page, after one to warm up.
REQUESTS = 10

#: What a page may take. Source: issue "The staff site", what must hold, 5.
GOAL_MS = 100

#: Lists with filters, and what their free keys are given.
_LISTS: dict[str, tuple[Key, ...]] = {
    "/journal/": journal.KEYS,
    "/dlq/": dlq.KEYS,
    "/deliveries/": deliveries.KEYS,
    "/people/": people.KEYS,
    "/audit/": audit.KEYS,
}
_VALUES: dict[str, tuple[str, ...]] = {
    "bot": ("desk", "nobody"),
    "platform": ("telegram", "nowhere"),
    "from": ("u17", '"Ada Nr 17"', "p17", "u1"),
    "before": ("7d", "1h"),
    "after": ("1h", "400d"),
    "who": ("carol", "nobody"),
    "what": ("outbox", "dlq.note", "nothing"),
    "object": ("journal", "nothing"),
    "id": ("17",),
    "chat": ("u1", "u17"),
    "entry": ("17",),
    "assignee": ("alice", "nobody"),
}
#: A word of every message, of each hundredth, of each hundred thousandth, of none; and a common one with a rare one.
_WORDS = ("order", "refund", "unicorn", "zebra", "order unicorn", "order 777777")

_MORE = (
    *(f"/people/?tab={tab}" for tab in people.TABS),
    "/people/?before=50000",
    "/people/?q=order&before=500000",
    f"/people/{town.TALKATIVE}/?before=500000",
    f"/people/{town.TALKATIVE}/?at=40001",
    f"/people/{town.TALKATIVE}/?platform=telegram",
    f"/people/{town.SHY}/",
    f"/people/{town.CONTACTS + 5}/",
    "/people/contacts/1/link/?person=p2",
    "/people/contacts/99999/link/?person=p1",
    *(f"/journal/{pk}/?tab={tab}" for pk in (21, 199_980) for tab in journal.TABS),
    *(f"/journal/?before={pk}" for pk in (100_000, 60)),
    "/journal/?q=state%3Aheld+bot%3Adesk+order",
    "/journal/replay/?all=",
    "/journal/replay/?all=state:discarded+bot:desk",
    "/dlq/?before=5000",
    *(f"/dlq/groups/{'0' * 16}/?state={state}" for state in ("open", "resolved", "discarded")),
    f"/dlq/groups/{'0' * 16}/?before=5000",
    f"/dlq/groups/{'1':>016}/",
    "/dlq/retry/?all=",
    "/dlq/discard/?all=bot:desk",
    "/deliveries/?before=100000",
    "/deliveries/resolve/again/?all=state:held",
    "/deliveries/resolve/drop/?all=state:unknown",
    *(f"/pairings/?tab={tab}" for tab in pairings.TABS),
    "/pairings/?tab=approved&before=10000",
    "/audit/?before=50000",
    "/operations/?before=10",
    "/operations/1/?after=5000",
    "/operations/1/?state=skipped",
    "/try/shop/?before=500",
)


def paths() -> Iterator[str]:
    """Every address, once."""
    for row in PAGES.values():
        if row.get not in (Need.NOT_POSSIBLE, Need.LEADS_TO_SIGN_IN) and not row.path.startswith("/hooks/"):
            yield row.path.replace("/nobody/", "/shop/")
    for base, keys in _LISTS.items():
        assert any(row.path == base for row in PAGES.values()), base
        for key in keys:
            yield from (f"{base}{address(f'{key.name}:{value}')}" for value in key.choices or _VALUES[key.name])
        yield from (f"{base}{address(words)}" for words in _WORDS)
    yield from _MORE
    yield from _admin()


def _admin() -> Iterator[str]:
    """Rows of every table, and a page far down of each."""
    for model in apps.get_app_config("botsrt").get_models():
        base = f"/admin/botsrt/{model._meta.model_name}/"
        pks = list(model._default_manager.order_by("-pk").values_list("pk", flat=True)[:1_000:999])
        if pks:
            yield f"{base}{pks[0]}/change/"
            yield f"{base}?{model._meta.pk.attname}__lt={pks[-1]}"
        for field in model._meta.fields:
            if field.choices:
                yield from (f"{base}?{field.name}__exact={value}" for value, _ in field.flatchoices[:8])


class _Queries:
    """Counts and times the queries of a request."""

    def __init__(self) -> None:
        self.count, self.slowest, self.sql = 0, 0.0, ""

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            took = time.perf_counter() - began
            self.count += 1
            if took > self.slowest:
                self.slowest, self.sql = took, sql


def _client() -> Client:
    client = Client(SERVER_NAME="localhost")
    client.force_login(User.objects.get(username="alice"))
    session = client.session
    session["sudo_until"] = int(time.time()) + 36_000
    session.save()
    return client


def _measured(path: str, one: Callable[[], Any], *, requests: int) -> dict[str, Any]:
    times, busy = [], []
    for _ in range(requests + 1):
        queries = _Queries()
        began, worked = time.perf_counter(), time.process_time()
        with connection.execute_wrapper(queries):
            status = one()
        times.append((time.perf_counter() - began) * 1000)
        busy.append((time.process_time() - worked) * 1000)
    times, busy = sorted(times[1:]), sorted(busy[1:])
    return {
        "kind": "pages",
        "database": connection.vendor,
        "page": path,
        "status": status,
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(times[min(int(len(times) * 0.95), len(times) - 1)], 1),
        "cpu_p50_ms": round(statistics.median(busy), 1),
        "queries": queries.count,
        "slowest_ms": round(queries.slowest * 1000, 1),
        "slowest": queries.sql,
    }


def _exports(client: Client, requests: int) -> Iterator[dict[str, Any]]:
    for file_format in ("markdown", "csv", "jsonl"):
        path = f"/people/{town.TALKATIVE}/export/"

        def first_byte(path: str = path, file_format: str = file_format) -> int:
            response: Any = client.post(path, {"file_format": file_format, "reason": "bench"})
            assert next(iter(response.streaming_content))
            return int(response.status_code)

        yield _measured(f"POST {path} {file_format}, first byte", first_byte, requests=requests)


def _status(client: Client, path: str) -> int:
    return client.get(path).status_code


def measure(*, requests: int, only: str) -> Iterator[dict[str, Any]]:
    client = _client()
    client.get("/")
    garbage.spare_what_stays()  # as every process that serves the site
    for path in dict.fromkeys(paths()):
        if only in path:
            yield _measured(path, partial(_status, client, path), requests=requests)
    if only in "/export/":
        yield from _exports(client, requests)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=0, help="not used: the size is fixed")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--only", default="", help="pages whose address has this")
    parser.add_argument("--sql", action="store_true", help="print the slowest statement of each page")
    options = parser.parse_args()
    town.make()
    for line in measure(requests=options.requests, only=options.only):
        if not options.sql:
            del line["slowest"]
        print(json.dumps(line), flush=True)
