"""Names in addresses. What cannot be a name is not found, and never reaches the database."""

from __future__ import annotations

from django.urls.converters import StringConverter

from botsrt.core import keys


class AccountConverter(StringConverter):
    regex = f"(?i:{keys.ACCOUNT_NAME.pattern})"


class PlatformConverter(StringConverter):
    regex = keys.PLATFORM_NAME.pattern
