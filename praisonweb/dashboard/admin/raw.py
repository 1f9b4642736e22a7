"""Rows as they are in the database, to read: nothing is added, changed or removed here, and no secret is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, URLPattern, reverse
from django.utils.html import format_html

from praisonweb.dashboard import access
from praisonweb.dashboard.access import Act
from praisonweb.dashboard.templatetags.shown import visible

#: Names of columns, and of values inside them, that are or may hold secrets.
_SECRET = re.compile(
    r"(^|_)(token|secret|password|credential|code|nonce|salt|digest|hash|api_?key|authorization)s?(_|$)", re.I
)
_MASK = "•••"

#: Columns that a list shows at most, beside the id.
_MAX_COLUMNS = 8

_ROWS_PER_PAGE = 50

#: Newest rows in which a filter looks at a time; the page offers to go on from there.
_SEARCHED = 20_000

#: Tables that need more than the right to read.
_ACTS = {"auditevent": Act.AUDIT}


if TYPE_CHECKING:
    Pages = admin.ModelAdmin[Any]
else:
    Pages = admin.ModelAdmin  # Django's classes are generic for type checkers alone


class RawList(ChangeList):
    """A page of the newest rows, and the way to older ones by the key of the last: no row is counted or passed over."""

    older: str  # the address of the next page; empty: there is none
    is_partial: bool  # the filter looked in some of the rows; ``older`` goes on from there

    def get_results(self, request: HttpRequest) -> None:
        rows, window_end = self._window() if self.has_active_filters else (self.queryset, None)
        listed = list(rows[: _ROWS_PER_PAGE + 1])
        has_more = len(listed) > _ROWS_PER_PAGE
        self.result_list = listed[:_ROWS_PER_PAGE]
        self.is_partial = not has_more and window_end is not None
        last = listed[_ROWS_PER_PAGE - 1].pk if has_more else window_end
        self.older = self.get_query_string({self._below: last}) if last is not None else ""
        self.result_count = self.full_result_count = len(self.result_list)
        self.show_full_result_count = self.can_show_all = self.multi_page = False
        self.show_admin_actions = True
        self.paginator = self.model_admin.get_paginator(request, self.result_list, _ROWS_PER_PAGE)

    @property
    def _below(self) -> str:
        """The parameter that the admin understands as "rows with a smaller key"."""
        return f"{self.lookup_opts.pk.attname}__lt"

    def _window(self) -> tuple[QuerySet[Any], Any]:
        """The rows of the filter among the newest of the table, and where these end; None: they are all."""
        newest = self.root_queryset.order_by("-pk")
        if self._below in self.params:
            newest = newest.filter(pk__lt=self.params[self._below])
        pks = list(newest.values_list("pk", flat=True)[: _SEARCHED + 1])
        if len(pks) <= _SEARCHED:
            return self.queryset, None
        return self.queryset.filter(pk__gte=pks[_SEARCHED - 1]), pks[_SEARCHED - 1]


class RawPages(Pages):
    """A list and a page per row, for any table."""

    list_per_page = _ROWS_PER_PAGE
    list_max_show_all = _ROWS_PER_PAGE
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    ordering = ("-pk",)
    sortable_by = ()
    change_list_template = "admin/raw_list.html"
    change_form_template = "admin/raw_row.html"

    def __init__(self, model: type[models.Model], admin_site: admin.AdminSite) -> None:
        super().__init__(model, admin_site)
        self.act = _ACTS.get(model._meta.model_name or "", Act.READ)
        columns = [field for field in model._meta.fields if not field.primary_key]
        self._pk = _column(model._meta.pk)
        self._columns = [_column(field) for field in columns]
        short = [field for field in columns if not isinstance(field, _LONG) and not field.is_relation]
        self._list_columns = [_column(field) for field in short if not _is_secret(field.name)][:_MAX_COLUMNS]
        self._filters = [field.name for field in columns if field.choices or isinstance(field, models.BooleanField)]

    # -- who ----

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access.may(request.user, self.act)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    # -- what ----

    def get_urls(self) -> list[URLPattern]:
        """The list and the rows; there is nothing to add or remove, and the audit is the history."""
        urls = [url for url in super().get_urls() if (url.name or "").endswith(("_changelist", "_change"))]
        return guarded(urls, access.requires(self.act))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return RawList

    def get_list_display(self, request: HttpRequest) -> Any:
        return [self._pk, *self._list_columns]

    def get_list_filter(self, request: HttpRequest) -> Any:
        return self._filters

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [self._pk, *self._columns]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [self._pk, *self._columns]


def guarded(urls: list[URLPattern], guard: Callable[[Any], Any]) -> list[URLPattern]:
    """``urls`` with a decorator around every view."""
    for url in urls:
        url.callback = guard(url.callback)
    return urls


# -- a value as text ----

_LONG = (models.TextField, models.JSONField)


def _column(field: Any) -> Callable[[Any], Any]:
    """What shows the value of ``field``, with the attributes by which the admin knows a column."""

    def column(row: Any) -> Any:
        return _shown(field, row)

    column.__name__ = field.name
    column.short_description = field.verbose_name  # type: ignore[attr-defined]
    if field.primary_key:
        column.admin_order_field = field.name  # type: ignore[attr-defined]
    if isinstance(field, models.BooleanField):
        column.boolean = True  # type: ignore[attr-defined]
    return column


def _shown(field: Any, row: Any) -> Any:
    value = getattr(row, field.attname)
    if isinstance(field, models.BooleanField) or value is None:
        return value
    if isinstance(field, models.JSONField):
        text = json.dumps(_masked(value, is_secret=_is_secret(field.name)), indent=2, ensure_ascii=False, default=str)
        return format_html("<pre>{}</pre>", visible(text))
    if _is_secret(field.name):
        return _masked(value, is_secret=True)
    if field.is_relation:
        return _link(field, value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(field, models.TextField) and "\n" in value:
        return format_html("<pre>{}</pre>", visible(value))
    return visible(str(value))


def _link(field: Any, key: Any) -> Any:
    related = field.related_model._meta
    try:
        url = reverse(f"admin:{related.app_label}_{related.model_name}_change", args=[key])
    except NoReverseMatch:
        return str(key)
    return format_html('<a href="{}">{} {}</a>', url, related.verbose_name, key)


def _is_secret(name: str) -> bool:
    return _SECRET.search(name) is not None or name == "credentials"


def _masked(value: Any, *, is_secret: bool) -> Any:
    """``value`` without the texts under a name that sounds secret. Names of variables are no secrets."""
    if isinstance(value, dict):
        return {key: _masked(part, is_secret=is_secret or _is_secret(str(key))) for key, part in value.items()}
    if isinstance(value, list):
        return [_masked(part, is_secret=is_secret) for part in value]
    if is_secret and isinstance(value, str) and value and not value.startswith("env:"):
        return _MASK
    return value
