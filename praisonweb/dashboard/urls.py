"""The pages and websockets of the staff site."""

from typing import Any

from channels.security.websocket import WebsocketDenier
from django.urls import path, re_path

from praisonweb.dashboard.consumers import LiveConsumer, TryConsumer
from praisonweb.dashboard.views import (
    account,
    agents,
    audit,
    bots,
    deliveries,
    dlq,
    health,
    home,
    journal,
    pairings,
    people,
    second_factor,
    try_it,
    workers,
)

urlpatterns = [
    path("", home.page, name="home"),
    path("charts/", home.charts_page, name="charts"),
    path("journal/", journal.page, name="journal"),
    path("journal/replay/", journal.replay_many, name="journal_replay_many"),
    path("journal/<id:entry_id>/", journal.entry, name="journal_entry"),
    path("journal/<id:entry_id>/replay/", journal.replay, name="journal_replay"),
    path("dlq/", dlq.groups, name="dlq"),
    path("dlq/retry/", dlq.retry_selected, name="dlq_retry_selected"),
    path("dlq/discard/", dlq.discard_selected, name="dlq_discard_selected"),
    path("dlq/groups/<fingerprint:fingerprint>/", dlq.group, name="dlq_group"),
    path("dlq/groups/<fingerprint:fingerprint>/retry/", dlq.retry_group, name="dlq_retry_group"),
    path("dlq/groups/<fingerprint:fingerprint>/discard/", dlq.discard_group, name="dlq_discard_group"),
    path("dlq/groups/<fingerprint:fingerprint>/note/", dlq.note_group, name="dlq_note_group"),
    path("dlq/groups/<fingerprint:fingerprint>/assign/", dlq.assign_group, name="dlq_assign_group"),
    path("dlq/groups/<fingerprint:fingerprint>/snooze/", dlq.snooze_group, name="dlq_snooze_group"),
    path("dlq/<id:item_id>/", dlq.item, name="dlq_item"),
    path("dlq/<id:item_id>/retry/", dlq.retry, name="dlq_retry"),
    path("dlq/<id:item_id>/edit/", dlq.edit, name="dlq_edit"),
    path("dlq/<id:item_id>/discard/", dlq.discard, name="dlq_discard"),
    path("dlq/<id:item_id>/undo/", dlq.undo, name="dlq_undo"),
    path("dlq/<id:item_id>/note/", dlq.note, name="dlq_note"),
    path("dlq/<id:item_id>/assign/", dlq.assign, name="dlq_assign"),
    path("dlq/<id:item_id>/snooze/", dlq.snooze, name="dlq_snooze"),
    path("deliveries/", deliveries.page, name="deliveries"),
    path("deliveries/resolve/<slug:resolution>/", deliveries.resolve_many, name="deliveries_resolve"),
    path("deliveries/<id:outbox_id>/", deliveries.one, name="delivery"),
    path("deliveries/<id:outbox_id>/<slug:resolution>/", deliveries.resolve, name="delivery_resolve"),
    path("people/", people.page, name="people"),
    path("people/<id:session_pk>/", people.one, name="conversation"),
    path("people/<id:session_pk>/reply/", people.reply, name="conversation_reply"),
    path("people/<id:session_pk>/note/", people.note, name="conversation_note"),
    path("people/<id:session_pk>/export/", people.export, name="conversation_export"),
    path("people/<id:session_pk>/hand-to/<slug:handler>/", people.hand_to, name="conversation_hand_to"),
    path("people/contacts/<id:contact_id>/link/", people.link, name="contact_link"),
    path("people/contacts/<id:contact_id>/unlink/", people.unlink, name="contact_unlink"),
    path("pairings/", pairings.page, name="pairings"),
    path("pairings/verify/", pairings.verify, name="pairing_verify"),
    path("pairings/<id:request_id>/approve/", pairings.approve, name="pairing_approve"),
    path("pairings/<id:request_id>/deny/", pairings.deny, name="pairing_deny"),
    path("pairings/<id:request_id>/block/", pairings.block, name="pairing_block"),
    path("pairings/<id:request_id>/revoke/", pairings.revoke, name="pairing_revoke"),
    path("bots/", bots.page, name="bots"),
    path("bots/+add/", bots.add, name="bot_add"),
    path("bots/<account:account>/", bots.bot, name="bot"),
    path("bots/<account:account>/edit/", bots.edit, name="bot_edit"),
    path("bots/<account:account>/credentials/", bots.credentials, name="bot_credentials"),
    path("bots/<account:account>/pause/", bots.pause, name="bot_pause"),
    path("bots/<account:account>/resume/", bots.resume, name="bot_resume"),
    path("bots/<account:account>/reconnect/", bots.reconnect, name="bot_reconnect"),
    path("bots/<account:account>/test/", bots.test, name="bot_test"),
    path("bots/<account:account>/remove/", bots.remove, name="bot_remove"),
    path("agents/", agents.page, name="agents"),
    path("agents/+add/", agents.add, name="agent_add"),
    path("agents/<account:name>/", agents.agent, name="agent"),
    path("agents/<account:name>/edit/", agents.edit, name="agent_edit"),
    path("agents/<account:name>/remove/", agents.remove, name="agent_remove"),
    path("audit/", audit.page, name="audit"),
    path("workers/", workers.page, name="workers"),
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
_live_socket: Any = LiveConsumer.as_asgi()
_nothing_here: Any = WebsocketDenier.as_asgi()

websocket_urlpatterns: list[Any] = [
    path("ws/live/", _live_socket),
    path("ws/try/<account:account>/", _try_socket),
    re_path(r"", _nothing_here),  # an unknown address is refused; without this it would be an error in the log
]
