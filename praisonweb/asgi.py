"""HTTP and websockets of the staff site."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "praisonweb.settings")
_http = get_asgi_application()  # sets Django up: what follows imports models

from praisonweb.dashboard.origin import SameOrigin  # noqa: E402
from praisonweb.dashboard.urls import websocket_urlpatterns  # noqa: E402

_websocket = AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))

application = ProtocolTypeRouter(
    {
        "http": _http,
        "websocket": SameOrigin(_websocket),
    }
)
