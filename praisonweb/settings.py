"""Settings, all from the environment. ``docs/operations.md`` lists them; the system checks explain wrong ones."""

from __future__ import annotations

import os
import secrets
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

# -- where things are kept -----------------------------------------------------------------------------------------

PRAISON_HOME = Path(env.str("PRAISON_HOME", default=str(BASE_DIR / "var"))).expanduser().resolve()
PRAISON_HOME.mkdir(mode=0o700, parents=True, exist_ok=True)


def _secret_key() -> str:
    """``SECRET_KEY``, else the one kept in the data folder, made on first use with mode 0600."""
    key: str = env.str("SECRET_KEY", default="")
    if key:
        return key
    path = PRAISON_HOME / "secret_key"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        file.write(key := secrets.token_urlsafe(64))
    return key


SECRET_KEY = _secret_key()
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# -- applications --------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "servestatic.runserver_nostatic",
    "django.contrib.admin.apps.SimpleAdminConfig",  # its pages are praisonweb.dashboard.admin, and nobody else's
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "channels",
    "csp",
    "django_htmx",
    "django_otp",
    "django_otp.plugins.otp_static",
    "django_otp.plugins.otp_totp",
    "django_q",
    "botsrt",
    "praisonweb.dashboard",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "praisonweb.dashboard.middleware.PermissionsPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "praisonweb.dashboard.middleware.SignedInMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",  # last: it turns a refused sign-in into the page that says so
]

ROOT_URLCONF = "praisonweb.urls"
ASGI_APPLICATION = "praisonweb.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# -- database, channel layer, tasks --------------------------------------------------------------------------------

DATABASE_URL = env.str("DATABASE_URL", default=f"sqlite:///{PRAISON_HOME / 'praisonweb.sqlite3'}")
DATABASES: dict[str, Any] = {"default": env.db_url_config(DATABASE_URL)}
if DATABASES["default"].get("ENGINE") not in ("django.db.backends.sqlite3", "django.db.backends.postgresql"):
    raise ImproperlyConfigured("DATABASE_URL: write postgres://user:password@host/name or sqlite:////folder/file.")
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",  # a writer waits for its turn instead of failing half-way
        "timeout": 20,
        # FULL: an acknowledged message survives a power cut. Group commit pays for it (docs/adr/0002).
        "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;",
    }
# CONN_MAX_AGE stays 0: each request has a thread of its own, so a connection that outlived it would not be used again.
# The database thread, which stays, keeps its own (runtime.db).
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", default="")
CHANNEL_LAYERS = {
    "default": (
        {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}
        if REDIS_URL
        else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    )
}

Q_CLUSTER = {
    "name": "praisonweb",
    "orm": "default",  # the Redis broker loses the task of a worker that dies
    "workers": env.int("TASK_WORKERS", default=1),
    "timeout": 600,
    "retry": 900,  # longer than the timeout, or a task runs twice
    "max_attempts": 3,
    "catch_up": False,
    "bulk": 1,
    "poll": 2,
    "label": "Tasks",
}

# -- the runtime ---------------------------------------------------------------------------------------------------

#: Every ``BOTSRT_<NAME>`` of the environment; read by ``botsrt.conf`` alone.
BOTSRT = {name.removeprefix("BOTSRT_"): value for name, value in os.environ.items() if name.startswith("BOTSRT_")}

# -- people and security -------------------------------------------------------------------------------------------

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # first: who is locked out is refused before the password is looked at
    "praisonweb.dashboard.backend.Backend",
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"

#: Shown as a stripe on every page, so that nobody takes a test site for the real one.
ENVIRONMENT = env.str("PRAISONWEB_ENVIRONMENT", default="")

#: What a monitor must say to read /metrics; empty: there is no such page.
METRICS_TOKEN = env.str("PRAISONWEB_METRICS_TOKEN", default="")

#: Proxies in front of the site, each of which adds one address to X-Forwarded-For. 0: the header is not looked at.
PROXIES = env.int("PRAISONWEB_PROXIES", default=0)
#: Staff without a second factor are sent to its set-up page, and see nothing else before.
REQUIRE_SECOND_FACTOR = env.bool("PRAISONWEB_REQUIRE_SECOND_FACTOR", default=False)

# Wrong passwords, by user name and address together: a stranger cannot lock anybody out from elsewhere.
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # attempts meanwhile are neither counted nor stored
AXES_CLIENT_IP_CALLABLE = "praisonweb.dashboard.client.ip_address"
AXES_LOCKOUT_CALLABLE = "praisonweb.dashboard.sign_ins.locked_page"
AXES_DISABLE_ACCESS_LOG = True  # the audit tells of sign-ins
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
#: Fields of our forms that are never stored with a failed sign-in; "password" is not in any case.
AXES_SENSITIVE_PARAMETERS = [
    *("username", "ip_address", "csrfmiddlewaretoken", "next", "code"),
    *("old_password", "new_password1", "new_password2"),
]

OTP_TOTP_ISSUER = "PraisonWeb"

#: The site is served over HTTPS by a proxy that sets X-Forwarded-Proto; cookies and redirects follow.
BEHIND_HTTPS = env.bool("BEHIND_HTTPS", default=False)
_is_local = DEBUG or set(ALLOWED_HOSTS) <= {"localhost", "127.0.0.1", "[::1]", "::1", ".localhost"}
#: Only on this machine may cookies go over plain HTTP.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = BEHIND_HTTPS or not _is_local
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 3_600 * env.int(
    "PRAISONWEB_SESSION_HOURS", default=24
)  # from the sign-in, or the last confirmation
SECURE_REFERRER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 31_536_000 if BEHIND_HTTPS else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_HTTPS else None
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_621_440

# -- mail: alerts --------------------------------------------------------------------------------------------------

_mail = env.email_url("EMAIL_URL", default="smtp://localhost:25")
EMAIL_BACKEND = _mail["EMAIL_BACKEND"]
EMAIL_HOST, EMAIL_PORT = _mail["EMAIL_HOST"], _mail["EMAIL_PORT"] or 25
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail["EMAIL_HOST_USER"] or "", _mail["EMAIL_HOST_PASSWORD"] or ""
EMAIL_USE_TLS, EMAIL_USE_SSL = _mail.get("EMAIL_USE_TLS", False), _mail.get("EMAIL_USE_SSL", False)
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.str("PRAISONWEB_MAIL_FROM", default="praisonweb@localhost")

# -- static files, language, time ----------------------------------------------------------------------------------

STATIC_URL = "static/"
STATIC_ROOT = PRAISON_HOME / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
SERVESTATIC_USE_FINDERS = True  # serves from the source folders: no collectstatic before the first run
SERVESTATIC_AUTOREFRESH = DEBUG
LANGUAGE_CODE = "en"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

# -- logging: one line per record on standard error, secrets masked ------------------------------------------------

LOG_LEVEL = env.str("LOG_LEVEL", default="INFO").upper()
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "botsrt.core.redact.RedactingFormatter",
            "format": "{asctime} {levelname:7} {name}: {message}",
            "style": "{",
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": sys.stderr}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "httpx2": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},  # its INFO lines contain request URLs, and Telegram's contain the token
        "django.server": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "daphne": {"level": "WARNING"},
        "axes": {"level": "ERROR"},  # praisonweb.dashboard.sign_ins says it better, in the audit and the log
    },
}
