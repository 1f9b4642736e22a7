"""The pages and websockets of the staff site."""

from typing import Any

from channels.security.websocket import WebsocketDenier
from django.contrib.auth.views import LogoutView
from django.urls import path, re_path

from praisonweb.dashboard.consumers import TryConsumer
from praisonweb.dashboard.views import account, health, home, try_it

urlpatterns = [
    path("", home.page, name="home"),
    path("try/", try_it.bots, name="try"),
    path("try/<account:account>/", try_it.chat, name="try_chat"),
    path("try/<account:account>/send/", try_it.send, name="try_send"),
    path("account/sign-in/", account.SignIn.as_view(), name="login"),
    path("account/sign-out/", LogoutView.as_view(), name="logout"),
    path("account/password/", account.ChangePassword.as_view(), name="password"),
    path("healthz", health.check, name="health"),
]

_try_socket: Any = TryConsumer.as_asgi()
_nothing_here: Any = WebsocketDenier.as_asgi()

websocket_urlpatterns: list[Any] = [
    path("ws/try/<account:account>/", _try_socket),
    re_path(r"", _nothing_here),  # an unknown address is refused; without this it would be an error in the log
]
