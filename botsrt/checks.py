"""System checks: wrong combinations of settings, each with an id and a hint."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register

from botsrt import conf, extensions
from botsrt.core.errors import ConfigurationError
from botsrt.services import resolvers

_LOOPBACK = {"localhost", "127.0.0.1", "[::1]", "::1", ".localhost"}


@register
def check_runtime_config(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    """E001: a BOTSRT_ variable cannot be used."""
    try:
        conf.from_mapping(settings.BOTSRT)
    except conf.ConfigError as error:
        return [
            Error(str(error), hint="Correct or unset the variable; docs/operations.md lists all.", id="botsrt.E001")
        ]
    return []


@register
def check_identity_resolver(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    """E006: the resolver that knows who is who cannot be used."""
    try:
        resolvers.load(conf.from_mapping(settings.BOTSRT).identity_resolver)
    except conf.ConfigError:
        return []  # E001 says so
    except ConfigurationError as error:
        return [
            Error(
                f"BOTSRT_IDENTITY_RESOLVER: {error}",
                hint="Write database, file, memory, or the dotted path of a class; docs/operations.md tells more.",
                id="botsrt.E006",
            )
        ]
    return []


@register
def check_debug_is_local(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    """E002: DEBUG shows source code and settings to whoever reaches an error page."""
    if settings.DEBUG and not set(settings.ALLOWED_HOSTS) <= _LOOPBACK:
        return [
            Error(
                "DEBUG is on while ALLOWED_HOSTS names hosts other than this machine.",
                hint="Unset DEBUG, or set ALLOWED_HOSTS=localhost,127.0.0.1.",
                id="botsrt.E002",
            )
        ]
    return []


@register
def check_allowed_hosts(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    """E003: a wildcard host disables the origin check of the websockets."""
    if any(host in ("*", ".") for host in settings.ALLOWED_HOSTS):
        return [
            Error(
                "ALLOWED_HOSTS contains a wildcard, which lets any website open the site's websockets.",
                hint="List the names under which the site is reached: ALLOWED_HOSTS=bots.example.org.",
                id="botsrt.E003",
            )
        ]
    return []


@register
def check_secret_key(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    """E004: a short key can be guessed, and it seals the bots' credentials."""
    if len(settings.SECRET_KEY) < 32:
        return [
            Error(
                f"SECRET_KEY has {len(settings.SECRET_KEY)} characters; at least 32 are needed.",
                hint="Unset it to have one made and kept in PRAISON_HOME, or use 50 random characters.",
                id="botsrt.E004",
            )
        ]
    return []


@register
def check_metrics_token(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    """E007: a short token can be guessed, and what it opens tells how busy the bots are, and their names."""
    if 0 < len(settings.METRICS_TOKEN) < 16:
        return [
            Error(
                f"PRAISONWEB_METRICS_TOKEN has {len(settings.METRICS_TOKEN)} characters; at least 16 are needed.",
                hint="Unset it to have no /metrics, or use 32 random characters.",
                id="botsrt.E007",
            )
        ]
    return []


@register
def check_cookies(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    """W001: over plain HTTP from other machines nobody can sign in: the cookies are for HTTPS and this machine."""
    if not settings.BEHIND_HTTPS and not set(settings.ALLOWED_HOSTS) <= _LOOPBACK:
        return [
            checks.Warning(
                "The site answers for other hosts than this machine without HTTPS; browsers will not sign in there.",
                hint="Put a proxy with TLS in front and set BEHIND_HTTPS=true.",
                id="botsrt.W001",
            )
        ]
    return []


@register
def check_scale_out(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    """W002: with a shared database but no Redis, other processes are only seen by polling."""
    if "sqlite" in settings.DATABASES["default"]["ENGINE"]:
        if settings.REDIS_URL:
            return [
                checks.Warning(
                    "REDIS_URL is set but the database is SQLite, which one machine alone can use.",
                    hint="Set DATABASE_URL=postgres://… to run on more than one machine, or unset REDIS_URL.",
                    id="botsrt.W002",
                )
            ]
        return []
    if not settings.REDIS_URL:
        return [
            checks.Warning(
                "PostgreSQL without REDIS_URL: processes notice each other's work only every BOTSRT_POLL_SECONDS.",
                hint="Set REDIS_URL=redis://… when more than one process runs.",
                id="botsrt.W003",
            )
        ]
    return []


@register
def check_alerts(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    """W004: alerts that go to chats alone reach nobody when it is the bots that do not run."""
    try:
        config = conf.from_mapping(settings.BOTSRT)
    except conf.ConfigError:
        return []  # E001 says so
    if config.alert_chats and not config.alert_mail_to:
        return [
            checks.Warning(
                "Alerts go to chats alone: when no worker runs, or the bot of the chat is down, nobody is told.",
                hint="Set BOTSRT_ALERT_MAIL_TO=you@example.org, and EMAIL_URL.",
                id="botsrt.W004",
            )
        ]
    return []


@register
def check_packages(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    """E005: a package that is searched for platforms or agent kinds cannot be imported."""
    try:
        config = conf.from_mapping(settings.BOTSRT)
    except conf.ConfigError:
        return []  # E001 says so
    named = {"BOTSRT_ADAPTER_PACKAGES": config.adapter_packages, "BOTSRT_AGENT_PACKAGES": config.agent_packages}
    return [
        Error(
            f"{variable}: the package {package} cannot be found.",
            hint="Correct the name, install it, or add its folder to PYTHONPATH.",
            id="botsrt.E005",
        )
        for variable, packages in named.items()
        for package in packages
        if not _exists(package)
    ]


@register
def check_commands(app_configs: Any, **kwargs: Any) -> Sequence[CheckMessage]:
    """W004: a command of the chat cannot be used."""
    try:
        conf.from_mapping(settings.BOTSRT)
    except conf.ConfigError:
        return []  # E001 says so
    return [
        checks.Warning(
            f"A command of the chat is left out: {found.source}: {found.problem}",
            hint="Correct or remove it; docs/commands.md has an example.",
            id="botsrt.W004",
        )
        for found in extensions.named()
        if found.command is None
    ]


def _exists(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False
