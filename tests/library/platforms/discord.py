"""What the documents' examples call Discord, while there is no adapter for it: Telegram's protocol by that name."""

from __future__ import annotations

from botsrt.adapters import telegram


class Adapter(telegram.Adapter):
    platform = "discord"
