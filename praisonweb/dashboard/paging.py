"""Pages of a list by the id of a row, newest first: every page costs the same, and new rows shift nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlencode

from django.http import Http404, HttpRequest

Row = TypeVar("Row")

#: Rows on one page.
PAGE_SIZE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Row]):
    """Some rows, and where the next page begins."""

    rows: Sequence[Row]
    older_before: int | None = None  # None: there is nothing older
    is_first: bool = True


def page_of(rows: Sequence[Row], ids: Sequence[int], *, before: int | None, size: int = PAGE_SIZE) -> Page[Row]:
    """A page of ``rows`` that were read with one row more than ``size``, to know whether there are more."""
    has_more = len(rows) > size
    return Page(
        rows=rows[:size],
        older_before=ids[size - 1] if has_more else None,
        is_first=before is None,
    )


def before(request: HttpRequest) -> int | None:
    """The id before which the page that is asked for begins; None: the first page.

    Raises:
        Http404: it is no id.
    """
    value = request.GET.get("before", "")
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise Http404(f"before: {value[:40]!r} is not the number of a row.")
    return int(value)


def row_ids(values: Sequence[str]) -> list[int]:
    """The ids in ``values`` (each one id, or several joined by commas), each once; what is no id is left out."""
    words = [word for value in values for word in value.split(",")]
    ids = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) <= 18]
    return list(dict.fromkeys(ids))


def older(request: HttpRequest, page: Page[Row]) -> str:
    """The address of the next page; empty when there is none."""
    if page.older_before is None:
        return ""
    return "?" + urlencode({"q": request.GET.get("q", ""), "before": page.older_before})
