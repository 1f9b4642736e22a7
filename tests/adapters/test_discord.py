"""Discord: the adapter's contract over the fake gateway and API, and what is Discord's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import discord as sdk
import pytest
import simcord

from botsrt.adapters import discord
from botsrt.adapters.discord import Adapter
from botsrt.core import commands
from botsrt.core.errors import (
    ConfigurationError,
    CredentialError,
    FileUnavailable,
    MessageRefused,
    OutcomeUnknown,
    PlatformUnavailable,
    RateLimited,
    TargetGone,
)
from botsrt.core.messages import Attachment, Button, InboundMessage, Route
from botsrt.core.ports import BotConfig
from botsrt.core.states import ChatType, EventKind
from tests.adapters.contract import (
    BUTTONS,
    RETRY_AFTER_SECONDS,
    AdapterContract,
    ButtonsContract,
    EditContract,
    RecordingSink,
    Said,
    SendFault,
    Sent,
    World,
    outbound,
    recorded,
    running,
    until,
)
from tests.fakes.discord import ALICE, MAY_READ_CONTENT, DiscordServer

OFFLINE_CONFIG = BotConfig(
    account="shop",
    platform="discord",
    credentials={"token": "MTAwMDAwMDAwMDAwMDAwMDA.Offline.offline-bot-token-secret"},
)

#: Short, so that a test need not wait.
API_SECONDS = 1.0

BOB = "502"


class DiscordWorld(World):
    adapter_class = Adapter

    def __init__(self, server: DiscordServer) -> None:
        self.server = server
        self.config = BotConfig(
            account="shop",
            platform="discord",
            settings={"api_base_url": server.url},
            credentials={"token": server.bot.token},
        )
        self.wrong_credentials = {"token": "MTAwMDAwMDAwMDAwMDAwOTk.Nobody.nobody-knows-this-token"}
        self.identity = "@shop"
        direct = server.dm_channel(ALICE).id
        self.direct = Route(channel_id=direct)
        self.threaded = Route(channel_id=server.add_thread("bread").id)  # a channel of its own at Discord
        self.replying = Route(channel_id=direct, reply_to=server.recall("a question", channel=direct))

    async def say(self, text: str) -> Said:
        await self.server.until(lambda: self.server.sessions)  # before its first session nothing is kept for a bot
        message_id = self.server.dm(text)
        return Said(channel_id=self.direct.channel_id, message_id=message_id, user_id=ALICE, text=text)

    async def edit(self, said: Said, text: str) -> None:
        self.server.edit(said.channel_id, said.message_id, text)

    async def deliver_again(self, said: Said) -> None:
        self.server.redeliver(said.event or said.message_id)

    async def press(self, sent: Sent, data: str) -> Said:
        user = ALICE if sent.channel_id == self.direct.channel_id else BOB
        self.server.add_user(BOB)
        pressed = self.server.press(sent.channel_id, sent.message_id, data, user=user)
        return Said(
            channel_id=sent.channel_id, message_id=f"callback:{pressed}", user_id=user, text=data, event=pressed
        )

    async def do_something_else(self) -> None:
        self.server.join(BOB)
        self.server.bot_message("build 12 failed")
        self.server.bot_message("build 13 failed", webhook=True)
        self.server.react(self.replying.channel_id, self.replying.reply_to)

    def is_acknowledged(self, said: Said) -> bool:
        return self.server.is_acked(said.event or said.message_id)

    async def remove(self, sent: Sent) -> None:
        self.server.delete(sent.channel_id, sent.message_id)

    async def break_next_send(self, fault: SendFault) -> None:
        await self._break_next("create_message", fault)

    async def break_next_edit(self, fault: SendFault) -> None:
        await self._break_next("edit_message", fault)

    async def _break_next(self, call: str, fault: SendFault) -> None:
        match fault:
            case SendFault.RATE_LIMITED:
                self.server.fail_next("429", call=call, retry_after=float(RETRY_AFTER_SECONDS))
            case SendFault.TARGET_GONE:
                self.server.fail_next("error", call=call, status=403, code=50007)
            case SendFault.REFUSED:
                self.server.fail_next("error", call=call, status=400, code=50035)
            case SendFault.PLATFORM_FAILED:
                self.server.fail_next("error", call=call, status=503, code=130000)
            case SendFault.UNREACHABLE:
                await self.lose_network()
            case SendFault.CUT_AFTER:
                self.server.fail_next("cut_after", call=call)
            case SendFault.NO_ANSWER:
                self.server.fail_next("hang", call=call, seconds=60.0)
            case SendFault.CREDENTIALS:
                self.server.revoke()

    def sent(self) -> list[Sent]:
        return [
            Sent(
                channel_id=sent.channel,
                message_id=sent.id,
                text=sent.text,
                reply_to=sent.reply_to,
                buttons=tuple(
                    Button(label=button["label"], data=button["custom_id"].partition(":")[2]) for button in sent.buttons
                ),
            )
            for sent in self.server.sent
            if not sent.is_deleted
        ]

    async def lose_network(self) -> None:
        await self.server.lose_network()

    async def restore_network(self) -> None:
        await self.server.restore_network()


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DiscordServer]:
    monkeypatch.setattr(discord, "API_SECONDS", API_SECONDS)
    async with DiscordServer() as server:
        yield server


@pytest.fixture
def world(server: DiscordServer) -> DiscordWorld:
    return DiscordWorld(server)


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


class TestGateway(AdapterContract, ButtonsContract, EditContract):
    offline_config = OFFLINE_CONFIG
    offline_class = Adapter

    @pytest.fixture
    def world(self, server: DiscordServer) -> Any:
        return DiscordWorld(server)


def read(name: str, *, me: str = "1000000000000000000") -> InboundMessage:
    """A recorded event as the bot of the recordings reads it."""
    adapter = Adapter(OFFLINE_CONFIG, RecordingSink())
    adapter._user_id = me
    message = adapter.parse(recorded("discord")[f"{name}.json"])
    assert message is not None
    return message


class TestConfiguration:
    @pytest.mark.parametrize("token", ["nonsense", "Bot a.b.c", "a.b.c "])
    def test_a_token_that_is_none_is_refused(self, token: str) -> None:
        with pytest.raises(ConfigurationError, match="token"):
            Adapter(replace(OFFLINE_CONFIG, credentials={"token": token}), RecordingSink())

    @pytest.mark.parametrize("url", ["discord.com", "ftp://discord.com", "https://"])
    def test_an_address_that_is_none_is_refused(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="api_base_url"):
            Adapter(replace(OFFLINE_CONFIG, settings={"api_base_url": url}), RecordingSink())

    async def test_an_intent_that_the_bot_lacks_is_named_before_it_connects(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        adapter = world.adapter(sink, settings={**world.config.settings, "message_content": "on"})
        with pytest.raises(ConfigurationError, match="Message Content Intent"):
            await adapter.probe()
        await adapter.close()
        assert world.server.bot.connection_count == 0

    async def test_an_intent_that_the_gateway_refuses_is_named(self, world: DiscordWorld, sink: RecordingSink) -> None:
        adapter = world.adapter(sink, settings={**world.config.settings, "message_content": "on"})
        world.server.bot.flags = MAY_READ_CONTENT
        await adapter.probe()
        world.server.bot.flags = 0
        with pytest.raises(ConfigurationError, match="Message Content Intent"):
            await adapter._connect()  # type: ignore[attr-defined]  # as start does after the probe
        await adapter.close()

    @pytest.mark.parametrize("call", ["me", "gateway"])
    @pytest.mark.parametrize("body", ["<html>", "[]", "{}"])
    async def test_a_server_that_is_no_discord_is_not_taken_for_one(
        self, call: str, body: str, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        world.server.fail_next("status", call=call, status=200, body=body)
        adapter = world.adapter(sink)
        with pytest.raises(PlatformUnavailable):
            await adapter.start()
        await adapter.close()

    async def test_a_token_that_is_withdrawn_ends_the_run(self, world: DiscordWorld, sink: RecordingSink) -> None:
        adapter = world.adapter(sink)
        await adapter.start()
        world.server.revoke()
        world.server.disconnect(code=4004)
        with pytest.raises(CredentialError):
            await adapter.run()
        await adapter.close()

    async def test_no_session_is_opened_when_discord_allows_no_more_today(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        world.server.bot.sessions_left = 0
        adapter = world.adapter(sink)
        with pytest.raises(PlatformUnavailable, match="60 min"):
            await adapter.start()
        await adapter.close()
        assert world.server.bot.connection_count == 0

    async def test_bots_of_different_servers_live_in_one_process(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        async with DiscordServer() as other_server:
            other, other_sink = DiscordWorld(other_server), RecordingSink()
            async with running(world, sink) as one, running(other, other_sink) as two:
                world.server.dm("to one")
                other_server.dm("to two")
                await until(lambda: bool(sink.messages and other_sink.messages), "both arrive")
                await one.send(outbound(world.direct, "from one"))
                await two.send(outbound(other.direct, "from two"))
        assert (sink.texts(), other_sink.texts()) == (["to one"], ["to two"])
        assert [sent.text for sent in world.sent()] == ["from one"]
        assert [sent.text for sent in other.sent()] == ["from two"]


class PickySink(RecordingSink):
    """A sink that dawdles over one text alone."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.is_time = asyncio.Event()
        self._text = text

    async def receive(self, message: InboundMessage) -> bool:
        if message.text == self._text:
            await self.is_time.wait()
        return await super().receive(message)


class TestSessions:
    @pytest.mark.parametrize("loss", ["cut", "asked", "closed"])
    async def test_a_lost_connection_is_resumed_and_nothing_is_missed(
        self, loss: str, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        server = world.server
        async with running(world, sink):
            server.dm("before")
            await until(lambda: sink.texts() == ["before"], "the first message arrives")
            match loss:
                case "cut":
                    server.drop_connections()
                case "asked":
                    server.disconnect()
                case "closed":
                    server.disconnect(code=4000)
            for number in range(5):
                server.dm(f"meanwhile {number}")
            await until(lambda: server.bot.connection_count == 2, "it comes back")
            server.dm("after")
            await until(lambda: "after" in sink.texts(), "the last message arrives")
        assert sink.texts() == ["before", *(f"meanwhile {number}" for number in range(5)), "after"]
        assert len(server.sessions) == 1

    async def test_what_comes_after_a_gap_is_not_acknowledged(self, world: DiscordWorld) -> None:
        server, sink = world.server, PickySink("slow")
        async with running(world, sink):
            slow = server.dm("slow")
            quick = server.dm("quick", user=BOB)
            await until(lambda: sink.texts() == ["quick"], "the quick one is stored")
            beats = server.sessions[0].beats
            await until(lambda: server.sessions[0].beats > beats + 1, "heartbeats tell what is stored")
            assert not server.is_acked(slow)
            assert not server.is_acked(quick)
            sink.is_time.set()
            await until(lambda: server.is_acked(slow) and server.is_acked(quick), "both are acknowledged")

    async def test_after_a_failure_nothing_overtakes_what_has_to_come_again(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        sink.refusals = 1
        async with running(world, sink):
            for number in range(10):
                world.server.dm(f"message {number}")
            await until(lambda: len(sink.messages) == 10, "all messages arrive")
        assert sink.texts() == [f"message {number}" for number in range(10)]
        assert len(world.server.sessions) == 1

    async def test_what_a_process_took_and_did_not_store_comes_to_the_next(
        self, monkeypatch: pytest.MonkeyPatch, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        monkeypatch.setattr(discord, "DRAIN_SECONDS", 0.05)
        async with running(world, sink):
            world.server.dm("one")
            await until(lambda: sink.texts() == ["one"], "the first message arrives")
            sink.gate.clear()
            world.server.dm("two", user=BOB)
            await until(lambda: sink.held == 1, "the second reaches the sink")
        sink.gate.set()
        assert sink.texts() == ["one"]
        async with running(world, sink):
            await until(lambda: sink.texts() == ["one", "two"], "it comes again")
        assert len(world.server.sessions) == 1

    async def test_no_other_server_is_asked_to_resume(self, world: DiscordWorld, sink: RecordingSink) -> None:
        """It would get the token."""
        async with running(world, sink):
            world.server.dm("one")
            await until(lambda: bool(sink.messages), "the message arrives")
        async with DiscordServer() as new_server:
            async with running(DiscordWorld(new_server), sink):
                new_server.dm("two")
                await until(lambda: "two" in sink.texts(), "the message arrives")
            assert new_server.bot.connection_count == 1
        assert world.server.bot.connection_count == 1

    @pytest.mark.parametrize("end", ["expired", "told", "invalid number"])
    async def test_after_a_lost_session_known_chats_are_caught_up(
        self, end: str, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        server = world.server
        async with running(world, sink):
            server.dm("one")
            server.mention("and here")
            await until(lambda: len(sink.messages) == 2, "the first messages arrive")
            if end == "told":
                server.disconnect(resumable=False)
                await until(lambda: len(server.sessions) == 2, "it begins anew", seconds=20)
        server.dm("two")
        server.mention("meanwhile")
        server.bot_message("build 12 failed")
        server.dm("three")
        server.dm("never heard of", user=BOB)
        server.expire_sessions()
        sink.messages[1] = replace(sink.messages[1], raw={})  # it is not kept for ever
        if end == "invalid number":
            server.sessions[-1].is_over = False
            del server.sessions[-1].events[1:]
        async with running(world, sink):
            server.dm("four")
            await until(lambda: "four" in sink.texts(), "the newest message arrives")
        heard = [message.text for message in sink.messages if message.chat_type is ChatType.DIRECT]
        assert heard == ["one", "two", "three", "four"]
        here = [message for message in sink.messages if message.chat_type is ChatType.GROUP]
        assert [(message.text, message.is_mentioned) for message in here] == [("and here", True), ("meanwhile", True)]

    async def test_catching_up_waits_for_limits_and_passes_closed_chats(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        server = world.server
        async with running(world, sink):
            server.dm("one")
            server.dm("one of Bob", user=BOB)
            await until(lambda: len(sink.messages) == 2, "the first messages arrive")
        server.dm("two")
        server.close_channel(server.dm_channel(BOB).id)
        server.expire_sessions()
        server.fail_next("429", call="messages", retry_after=0.05, times=2)
        async with running(world, sink):
            await until(lambda: "two" in sink.texts(), "what was missed arrives")
        assert server.calls.count("messages") == 4

    async def test_reading_waits_while_much_is_being_stored(
        self, monkeypatch: pytest.MonkeyPatch, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        monkeypatch.setattr(discord, "MAX_STORING", 2)
        sink.gate.clear()
        async with running(world, sink):
            for user in range(5):
                world.server.dm("hello", user=str(1_000 + user))
            await until(lambda: sink.held == 2, "two messages reach the sink")
            beats = world.server.sessions[0].beats
            await until(lambda: world.server.sessions[0].beats > beats + 2, "the connection lives on")
            assert sink.held == 2
            sink.gate.set()
            await until(lambda: len(sink.messages) == 5, "all arrive")

    async def test_what_was_answered_is_not_answered_again_after_a_backup_was_restored(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        async with running(world, sink) as adapter:
            world.server.dm("one")
            await until(lambda: bool(sink.messages), "the message arrives")
            backup = RecordingSink(messages=list(sink.messages))
            world.server.dm("two")
            await until(lambda: len(sink.messages) == 2, "the message arrives")
            await adapter.send(outbound(world.direct, "an answer to two"))
        world.server.dm("three")
        world.server.expire_sessions()
        async with running(world, backup):
            await until(lambda: backup.texts() == ["one", "three"], "what nobody heard arrives")

    async def test_a_gateway_that_falls_silent_is_left(
        self, monkeypatch: pytest.MonkeyPatch, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        monkeypatch.setattr(discord, "SILENCE_SECONDS", 0.3)
        async with running(world, sink):
            world.server.freeze()
            world.server.dm("anybody?")
            await until(lambda: sink.texts() == ["anybody?"], "the message arrives")

    async def test_a_platform_that_stays_away_ends_the_run(
        self, monkeypatch: pytest.MonkeyPatch, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        monkeypatch.setattr(discord, "LOST_SECONDS", 0.2)
        adapter = world.adapter(sink)
        await adapter.start()
        await world.lose_network()
        with pytest.raises(PlatformUnavailable):
            await adapter.run()
        await adapter.close()


class TestMessages:
    async def test_a_mention_is_read_without_the_name(self, world: DiscordWorld, sink: RecordingSink) -> None:
        async with running(world, sink):
            message_id = world.server.mention("when do you open?")
            await until(lambda: bool(sink.messages), "the message arrives")
        (message,) = sink.messages
        assert (message.text, message.is_mentioned, message.chat_type) == ("when do you open?", True, ChatType.GROUP)
        assert (message.reply_to, message.chat_name) == (message_id, "general")

    async def test_what_is_said_to_others_is_read_with_the_intent_alone(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        world.server.bot.flags = MAY_READ_CONTENT
        for setting in ("off", "on"):
            async with running(world, sink, settings={**world.config.settings, "message_content": setting}):
                world.server.say(f"nobody in particular, {setting}")
                world.server.dm(f"done, {setting}")
                await until(lambda: len(sink.messages) == (1 if setting == "off" else 3), "messages arrive")  # noqa: B023
        assert sorted(sink.texts()) == ["done, off", "done, on", "nobody in particular, on"]
        assert [message.is_mentioned for message in sink.messages if "nobody" in message.text] == [False]

    async def test_a_thread_is_a_chat_of_its_own(self, world: DiscordWorld, sink: RecordingSink) -> None:
        async with running(world, sink):
            thread = world.server.add_thread("cakes")
            world.server.mention("any left?", channel=thread.id)
            await until(lambda: bool(sink.messages), "the message arrives")
        (message,) = sink.messages
        assert (message.channel_id, message.thread_id, message.chat_name) == (thread.id, "", "cakes")

    async def test_a_link_preview_is_no_edit(self, world: DiscordWorld, sink: RecordingSink) -> None:
        async with running(world, sink):
            said = await world.say("https://example.com")
            world.server.unfurl(said.channel_id, said.message_id)
            world.server.edit(said.channel_id, said.message_id, "https://example.org")
            world.server.unfurl(said.channel_id, said.message_id)
            await world.say("done")
            await until(lambda: "done" in sink.texts(), "the last message arrives")
        assert sink.texts() == ["https://example.com", "https://example.org", "done"]

    async def test_an_unreadable_event_is_kept_and_the_next_is_read(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        session = world.server.sessions
        async with running(world, sink):
            world.server._dispatch(session[0], "MESSAGE_CREATE", {"id": "7", "channel_id": "8", "content": None})
            world.server._dispatch(session[0], "INTERACTION_CREATE", {"token": "very-secret", "type": 2})
            world.server._dispatch(session[0], "MESSAGE_CREATE", ["nonsense"])
            world.server._dispatch(session[0], "INTERACTION_CREATE", None)
            world.server._dispatch(session[0], "GUILD_CREATE", ["nonsense"])
            world.server._dispatch(session[0], "RESUMED", None)  # on which discord.py itself fails
            await world.say("hello")
            await until(lambda: bool(sink.messages), "the message behind them arrives")
            await until(lambda: len({kept.event_id for kept in sink.unreadable}) == 4, "they are kept")
        assert "MESSAGE_CREATE:7" in {kept.event_id for kept in sink.unreadable}
        assert "very-secret" not in str(sink.unreadable)

    def test_recorded_fields_are_where_they_belong(self) -> None:
        reply = read("message_reply")
        assert (reply.is_mentioned, reply.text, reply.sender.display_name) == (True, "And on Sundays?", "Ali")
        assert read("message_reply", me="1").is_mentioned is False
        assert read("message_mention_old_style").text == "when do you open?"
        assert read("message_read_in_full").is_mentioned is False
        assert read("message_direct").sender.display_name == "Alice Example"
        assert read("edit_direct").revision == "2026-11-02T09:31:02.000000+00:00"
        assert read("command_guild").text == "/link ABCD2345"
        assert (read("button_guild").text, read("button_guild").reply_to) == ("order:17:yes", "1301500000000000150")
        assert "token" not in read("command_direct").raw["d"]

    def test_a_reply_to_the_bot_means_it_without_a_ping(self) -> None:
        raw = recorded("discord")["message_reply.json"]
        quiet = {**raw, "d": {**raw["d"], "mentions": []}}
        adapter = Adapter(OFFLINE_CONFIG, RecordingSink())
        adapter._user_id = "1000000000000000000"
        message = adapter.parse(quiet)
        assert message is not None
        assert message.is_mentioned

    @pytest.mark.parametrize(
        ("name", "kind", "ending"),
        [("message_photo", "photo", "parcel.png"), ("message_voice", "voice", "voice-message.ogg")],
    )
    def test_files_are_referred_to(self, name: str, kind: str, ending: str) -> None:
        (file,) = read(name).attachments
        assert (file.kind, file.name) == (kind, ending)
        assert file.reference.startswith("https://cdn.discordapp.com/attachments/")

    def test_a_sticker_is_a_file(self) -> None:
        (sticker,) = read("message_sticker").attachments
        assert (sticker.kind, sticker.name) == ("sticker", "Wave")
        assert sticker.reference == "https://media.discordapp.net/stickers/749054660769218631.json"


class TestCommands:
    async def test_the_commands_of_the_chat_are_registered(self, world: DiscordWorld, sink: RecordingSink) -> None:
        async with running(world, sink):
            await until(lambda: bool(world.server.bot.commands), "they are registered")
        offered = [(command["name"], command["description"]) for command in world.server.bot.commands]
        assert offered == commands.menu()

    async def test_commands_of_ones_own_are_left_alone(self, world: DiscordWorld, sink: RecordingSink) -> None:
        async with running(world, sink, settings={**world.config.settings, "menu": "yours"}):
            await world.say("hello")
            await until(lambda: bool(sink.messages), "the message arrives")
        assert "register" not in world.server.calls

    async def test_a_command_is_stored_then_confirmed_to_its_author_alone(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        sink.gate.clear()
        async with running(world, sink):
            await world.server.until(lambda: world.server.sessions)
            number = world.server.command("link", "ABCD2345")
            await until(lambda: sink.held == 1, "the command reaches the sink")
            (interaction,) = world.server.interactions
            assert interaction.responses == []
            sink.gate.set()
            await until(lambda: bool(interaction.responses), "it is confirmed")
        (message,) = sink.messages
        assert (message.text, message.message_id) == ("/link ABCD2345", f"command:{number}")
        assert (message.channel_id, message.reply_to, message.kind) == (
            world.direct.channel_id,
            "",
            EventKind.MESSAGE,
        )
        (response,) = interaction.responses
        assert response == {"type": 4, "data": {"content": "Received: /link", "flags": 64}}
        assert interaction.token not in str(message)

    async def test_a_command_that_was_not_stored_is_not_confirmed_until_it_is(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        sink.refusals = 1
        async with running(world, sink):
            await world.server.until(lambda: world.server.sessions)
            world.server.command("status", channel=world.server.bot.channel_id)
            await until(lambda: sink.texts() == ["/status"], "it comes again")
            await until(lambda: bool(world.server.interactions[0].responses), "it is confirmed")
        assert world.server.calls.count("callback") == 1
        assert sink.messages[0].chat_type is ChatType.GROUP

    async def test_a_confirmation_that_fails_harms_nothing_and_tells_no_secret(
        self, world: DiscordWorld, sink: RecordingSink, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        world.server.fail_next("cut_before", call="callback")
        async with running(world, sink):
            await world.server.until(lambda: world.server.sessions)
            world.server.command("help")
            await until(lambda: "callback" in world.server.calls, "it is tried")
            await world.say("and?")
            await until(lambda: sink.texts() == ["/help", "and?"], "the next message arrives")
            await until(lambda: "was not confirmed" in caplog.text, "it is said")
        assert world.server.interactions[0].token not in caplog.text.replace("fake", "")

    async def test_what_the_bot_does_nothing_with_is_not_confirmed(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        async with running(world, sink):
            (session,) = world.server.sessions
            for name in ("ignored_menu", "ignored_autocomplete", "unreadable_command_without_name"):
                world.server._dispatch(session, "INTERACTION_CREATE", recorded("discord")[f"{name}.json"]["d"])
            await world.say("hello")
            await until(lambda: bool(sink.messages and sink.unreadable), "the message behind them arrives")
        assert "callback" not in world.server.calls

    async def test_a_pressed_button_stops_waiting_and_stays_as_it_is(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        async with running(world, sink) as adapter:
            receipt = await adapter.send(outbound(world.direct, buttons=BUTTONS))
            world.server.press(world.direct.channel_id, receipt.platform_message_id, BUTTONS[0].data)
            await until(lambda: bool(world.server.interactions[0].responses), "it is confirmed")
        assert world.server.interactions[0].responses == [{"type": 6}]


class TestSending:
    async def test_a_message_sent_again_with_its_key_is_the_same(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        adapter = world.adapter(sink)
        world.server.fail_next("cut_after")
        with pytest.raises(OutcomeUnknown):
            await adapter.send(outbound(world.direct, "once"))
        again = await adapter.send(outbound(world.direct, "once"))
        other = await adapter.send(outbound(world.direct, "once", number=2))
        await adapter.close()
        first, second = world.sent()
        assert (first.message_id, second.message_id) == (again.platform_message_id, other.platform_message_id)

    def test_a_key_is_a_short_nonce_that_no_other_message_has(self) -> None:
        one = outbound(Route(channel_id="1"), "Hello")
        again = replace(one, attempt=2, outbox_id=9)
        others = [
            replace(one, idempotency_key="x" * 200),
            replace(one, route=Route(channel_id="2")),
            replace(one, text="ключ \ud800"),  # after a database was emptied, the same key may belong to this
        ]
        assert discord._nonce(one) == discord._nonce(again)
        nonces = {discord._nonce(message) for message in (one, *others)}
        assert len(nonces) == 4
        assert all(len(nonce) <= 25 for nonce in nonces)

    async def test_nobody_is_woken_but_people_who_are_named(self, world: DiscordWorld, sink: RecordingSink) -> None:
        adapter = world.adapter(sink)
        await adapter.send(outbound(world.direct, "@everyone <@501> <@&7>"))
        await adapter.close()
        assert world.server.sent[0].allowed_mentions == {"parse": ["users"], "replied_user": True}

    async def test_a_message_that_is_gone_does_not_keep_its_answer_back(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        adapter = world.adapter(sink)
        await adapter.send(outbound(replace(world.direct, reply_to="4711")))
        world.server.fail_next("error", status=400, code=160002)
        await adapter.send(outbound(world.replying, number=2))
        await adapter.close()
        assert [sent.reply_to for sent in world.sent()] == ["", ""]

    @pytest.mark.parametrize("edits", ["", "1"])
    @pytest.mark.parametrize("channel_id", ["", "general", "1/../2", "@me"])
    async def test_a_chat_that_is_none_is_gone(
        self, channel_id: str, edits: str, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        adapter = world.adapter(sink)
        message = outbound(Route(channel_id=channel_id), edits=edits)
        with pytest.raises(TargetGone):
            await (adapter.edit(message) if edits else adapter.send(message))
        await adapter.close()
        assert world.server.calls == []

    async def test_a_chat_that_was_closed_is_gone(self, world: DiscordWorld, sink: RecordingSink) -> None:
        adapter = world.adapter(sink)
        for route in (world.direct, world.threaded):
            world.server.close_channel(route.channel_id)
            with pytest.raises(TargetGone):
                await adapter.send(outbound(route))
        await adapter.close()

    async def test_a_full_chat_is_not_asked_and_others_are(self, world: DiscordWorld, sink: RecordingSink) -> None:
        world.server.messages_per_window = 2
        adapter = world.adapter(sink)
        for number in range(2):
            await adapter.send(outbound(world.direct, number=number))
        with pytest.raises(RateLimited) as limit:
            await adapter.send(outbound(world.direct, number=2))
        await adapter.send(outbound(world.threaded, number=3))
        await adapter.close()
        assert timedelta() < limit.value.retry_after <= timedelta(seconds=world.server.window_seconds)
        assert not limit.value.whole_account
        assert world.server.calls.count("create_message") == 3

    async def test_a_limit_of_the_whole_bot_is_told(self, world: DiscordWorld, sink: RecordingSink) -> None:
        adapter = world.adapter(sink)
        world.server.fail_next("429", retry_after=0.4, is_global=True)
        with pytest.raises(RateLimited) as limit:
            await adapter.send(outbound(world.direct))
        await adapter.close()
        assert limit.value.whole_account
        assert limit.value.retry_after == timedelta(seconds=0.4)

    @pytest.mark.parametrize(
        ("kind", "status", "expected"),
        [
            ("error", 500, OutcomeUnknown),
            ("status", 502, OutcomeUnknown),
            ("status", 504, OutcomeUnknown),
            ("status", 503, PlatformUnavailable),
            ("status", 403, PlatformUnavailable),  # of a gateway before Discord
            ("status", 429, RateLimited),
            ("error", 404, TargetGone),
            ("error", 400, MessageRefused),
        ],
    )
    async def test_other_answers_say_what_became_of_the_message(
        self, kind: Any, status: int, expected: type[Exception], world: DiscordWorld, sink: RecordingSink
    ) -> None:
        adapter = world.adapter(sink)
        world.server.fail_next(kind, status=status, code=1)
        with pytest.raises(expected) as failure:
            await adapter.send(outbound(world.direct))
        await adapter.close()
        assert type(failure.value) is expected

    async def test_a_label_is_cut_and_equal_buttons_are_told_apart(
        self, world: DiscordWorld, sink: RecordingSink
    ) -> None:
        adapter = world.adapter(sink)
        await adapter.send(outbound(world.direct, buttons=(Button(label="x" * 100, data="1:a"),) * 2))
        await adapter.close()
        (sent,) = world.sent()
        assert [(button.label, button.data) for button in sent.buttons] == [("x" * 79 + "…", "1:a")] * 2

    async def test_typing_is_shown(self, world: DiscordWorld, sink: RecordingSink) -> None:
        adapter = world.adapter(sink)
        await adapter.show_typing(world.direct)
        await adapter.close()
        assert world.server.typing == [world.direct.channel_id]


class TestFiles:
    async def fetched(self, world: DiscordWorld, file: Mapping[str, Any], *, max_bytes: int = 1_000) -> bytes:
        adapter = world.adapter(RecordingSink())
        try:
            return await adapter.fetch(Attachment(kind="photo", reference=file["url"]), max_bytes=max_bytes)
        finally:
            await adapter.close()

    async def test_a_file_is_fetched(self, world: DiscordWorld) -> None:
        file = world.server.add_file("cat.png", b"meow", mime_type="image/png")
        assert await self.fetched(world, file) == b"meow"
        assert world.server.calls == []
        with pytest.raises(FileUnavailable, match="more than 3 bytes"):
            await self.fetched(world, file, max_bytes=3)

    async def test_the_address_of_an_old_file_is_made_new(self, world: DiscordWorld) -> None:
        file = world.server.add_file("cat.png", b"meow", mime_type="image/png", is_expired=True)
        assert await self.fetched(world, file) == b"meow"
        assert world.server.calls == ["refresh"]

    async def test_a_file_that_is_gone_is_unavailable(self, world: DiscordWorld) -> None:
        file = world.server.add_file("cat.png", b"meow", mime_type="image/png", is_expired=True)
        world.server.files.clear()
        with pytest.raises(FileUnavailable):
            await self.fetched(world, file)

    @pytest.mark.parametrize(
        "url", ["https://evil.example/cat.png", "https://cdn.discordapp.com@127.0.0.1/", "file:///etc/passwd", "cat"]
    )
    async def test_other_hosts_are_not_asked(self, url: str, world: DiscordWorld) -> None:
        with pytest.raises(FileUnavailable):
            await self.fetched(world, {"url": url})


class _OverSimcord:
    """The adapter's API client, over simcord's instead of a connection."""

    def __init__(self, http: Any) -> None:
        self._http = http

    async def request(self, route: Any, *, is_about_chat: bool = False, **options: Any) -> Any:
        try:
            return await self._http.request(route, **{name: value for name, value in options.items() if value})
        except sdk.HTTPException as refusal:
            answer = {"code": refusal.code, "message": refusal.text}
            raise discord._refusal(refusal.status, answer, {}, is_about_chat=is_about_chat) from None

    async def close(self) -> None:
        """Nothing to release."""


async def test_an_independent_discord_understands_us_and_we_it(sink: RecordingSink) -> None:
    """simcord makes its own events and checks every field of calls; our fake was made by who made the adapter."""
    intents = sdk.Intents.none()
    intents.guilds = intents.guild_messages = intents.dm_messages = True
    client = sdk.Client(intents=intents)
    handling: list[asyncio.Task[None]] = []
    async with simcord.run(client) as env:
        guild = env.create_guild()
        channel, alice = guild.create_text_channel("general"), guild.add_member(env.create_user("alice"))
        adapter = Adapter(OFFLINE_CONFIG, sink)
        adapter._api = _OverSimcord(client.http)  # type: ignore[assignment]
        assert client.user is not None
        assert (await adapter.probe()).identity == f"@{client.user.name}"

        class NoGateway:
            session_id = None

        async def handle(kind: str, data: Mapping[str, Any]) -> None:
            await adapter._receive({"t": kind, "s": 1, "d": data}, NoGateway())  # type: ignore[arg-type]
            if kind == "INTERACTION_CREATE":
                await adapter._confirm(data)

        def beside(kind: str) -> None:
            parse = client._connection.parsers[kind]

            def both(data: Any) -> None:
                parse(data)
                handling.append(asyncio.create_task(handle(kind, data)))

            client._connection.parsers[kind] = both

        for kind in discord._STORED_EVENTS:
            beside(kind)
        await adapter._offer_commands()
        route = Route(channel_id=str(channel.id))
        question = await alice.send(channel, f"<@{client.user.id}> hello")
        await alice.send(channel, "hello, all")
        await alice.send_dm("psst")
        await alice.edit(question, f"<@{client.user.id}> hello, bot")
        await asyncio.gather(*handling)
        receipt = await adapter.send(outbound(replace(route, reply_to=str(question.id)), "Ship it?", buttons=BUTTONS))
        answer = channel.last_message
        assert answer is not None
        assert (str(answer.id), answer.content) == (receipt.platform_message_id, "Ship it?")
        assert answer.reference is not None
        assert answer.reference.message_id == question.id
        pressed = await alice.click(answer, label=BUTTONS[0].label)
        commanded = await alice.slash(channel, "link", text="ABCD2345")
        assert (pressed.acknowledged, pressed.followups) == (True, [])
        assert commanded.ephemeral
        await asyncio.gather(*handling)
        await adapter.edit(outbound(route, "Shipped.", edits=receipt.platform_message_id))
        edited = channel.last_message
        assert edited is not None
        assert (edited.content, edited.components) == ("Shipped.", [])
        await adapter.show_typing(route)
        for _ in range(2):
            await adapter.delete(route, receipt.platform_message_id)
        with pytest.raises(TargetGone):
            await adapter.send(outbound(Route(channel_id="4711")))
        with pytest.raises(MessageRefused):
            await adapter.send(outbound(route, "x" * 2_001))
    said = [(message.kind, message.text, message.chat_type, message.is_mentioned) for message in sink.messages]
    assert said == [
        (EventKind.MESSAGE, "hello", ChatType.GROUP, True),
        (EventKind.MESSAGE, "psst", ChatType.DIRECT, True),
        (EventKind.EDIT, "hello, bot", ChatType.GROUP, True),
        (EventKind.CALLBACK, BUTTONS[0].data, ChatType.GROUP, True),
        (EventKind.MESSAGE, "/link ABCD2345", ChatType.GROUP, True),
    ]
