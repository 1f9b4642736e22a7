"""Names in addresses. What cannot be a name is not found, and never reaches the database."""

from __future__ import annotations

from django.urls.converters import IntConverter, StringConverter

from botsrt.core import keys


class AccountConverter(StringConverter):
    regex = f"(?i:{keys.ACCOUNT_NAME.pattern})"


class PlatformConverter(StringConverter):
    regex = keys.PLATFORM_NAME.pattern


class IdConverter(IntConverter):
    """The id of a row: never more digits than a database takes."""

    regex = "[0-9]{1,18}"


class FingerprintConverter(StringConverter):
    regex = "[0-9a-f]{16}"
