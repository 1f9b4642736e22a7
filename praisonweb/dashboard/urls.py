"""The pages and websockets of the staff site."""

from typing import Any

from channels.security.websocket import WebsocketDenier
from django.urls import path, re_path

from praisonweb.dashboard.consumers import TryConsumer
from praisonweb.dashboard.views import account, health, home, second_factor, try_it

urlpatterns = [
    path("", home.page, name="home"),
    path("try/", try_it.bots, name="try"),
    path("try/<account:account>/", try_it.chat, name="try_chat"),
    path("try/<account:account>/send/", try_it.send, name="try_send"),
    path("account/sign-in/", account.SignIn.as_view(), name="login"),
    path("account/sign-in/code/", account.second_step, name="second_step"),
    path("account/sign-out/", account.sign_out, name="logout"),
    path("account/password/", account.ChangePassword.as_view(), name="password"),
    path("account/confirm/", account.confirm, name="sudo"),
    path("account/second-factor/", second_factor.page, name="second_factor"),
    path("account/second-factor/set-up/", second_factor.set_up, name="second_factor_set_up"),
    path("account/second-factor/recovery-codes/", second_factor.recovery_codes, name="recovery_codes"),
    path("account/second-factor/off/", second_factor.turn_off, name="second_factor_off"),
    path("healthz", health.check, name="health"),
]

_try_socket: Any = TryConsumer.as_asgi()
_nothing_here: Any = WebsocketDenier.as_asgi()

websocket_urlpatterns: list[Any] = [
    path("ws/try/<account:account>/", _try_socket),
    re_path(r"", _nothing_here),  # an unknown address is refused; without this it would be an error in the log
]
