"""Pages of a list by the id of a row, newest first: every page costs the same, and new rows shift nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlencode

from django.db import models
from django.db.models import QuerySet
from django.http import Http404, HttpRequest

Row = TypeVar("Row")
Model = TypeVar("Model", bound=models.Model)

#: Rows on one page.
PAGE_SIZE = 50

#: Longest id that is looked for, in digits: what both databases can hold.
MAX_ID_CHARS = 18

#: Newest rows in which free words are looked for at a time; a page offers to go on from there.
SEARCHED = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Row]):
    """Some rows, and where the next page begins."""

    rows: Sequence[Row]
    older_before: int | None = None  # None: there is nothing older
    is_first: bool = True
    is_partial: bool = False  # words were looked for in some of the rows; ``older_before`` goes on from there


def page_of(rows: Sequence[Row], ids: Sequence[int], *, before: int | None, window_end: int | None = None) -> Page[Row]:
    """A page of ``rows`` that were read with one row more than a page has, to know whether there are more.

    Args:
        window_end: where the search for words ended, as ``window`` said.
    """
    has_more = len(rows) > PAGE_SIZE
    return Page(
        rows=rows[:PAGE_SIZE],
        older_before=ids[PAGE_SIZE - 1] if has_more else window_end,
        is_first=before is None,
        is_partial=not has_more and window_end is not None,
    )


def window(rows: QuerySet[Model]) -> tuple[QuerySet[Model], int | None]:
    """The newest of ``rows``, for a search that would otherwise read them all, and where they end; None: these are
    all."""
    newest = list(rows.order_by("-pk").values_list("pk", flat=True)[: SEARCHED + 1])
    if len(newest) <= SEARCHED:
        return rows, None
    last = newest[SEARCHED - 1]
    return rows.filter(pk__gte=last), last


def before(request: HttpRequest) -> int | None:
    """The id before which the page that is asked for begins; None: the first page.

    Raises:
        Http404: it is no id.
    """
    return row_id(request, "before")


def row_id(request: HttpRequest, name: str) -> int | None:
    """The id of a row in the address; None: it has none.

    Raises:
        Http404: it is no id.
    """
    value = request.GET.get(name, "")
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > MAX_ID_CHARS:
        raise Http404(f"{name}: {value[:40]!r} is not the number of a row.")
    return int(value)


def row_ids(values: Sequence[str]) -> list[int]:
    """The ids in ``values`` (each one id, or several joined by commas), each once; what is no id is left out."""
    words = [word for value in values for word in value.split(",")]
    ids = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) <= MAX_ID_CHARS]
    return list(dict.fromkeys(ids))


def older(request: HttpRequest, page: Page[Row]) -> str:
    """The address of the next page; empty when there is none."""
    if page.older_before is None:
        return ""
    return "?" + urlencode({"q": request.GET.get("q", ""), "before": page.older_before})
