"""The agent that every new bot starts with."""

from __future__ import annotations

import pytest

from botsrt.agents.echo import Agent
from botsrt.core.errors import ConfigurationError
from botsrt.core.messages import Attachment
from tests.agents.world import a_config, a_request


async def test_it_says_what_it_hears():
    assert (await Agent(a_config("echo")).run(a_request("hello"))).text == "hello"


async def test_it_puts_the_prefix_before_it():
    assert (await Agent(a_config("echo", prefix="You said: ")).run(a_request("hello"))).text == "You said: hello"


async def test_a_message_without_words_is_named_by_what_is_attached():
    photo = Attachment(kind="photo", reference="file-1")
    assert (await Agent(a_config("echo")).run(a_request("", attachments=(photo,)))).text == "[photo]"


async def test_it_waits_as_long_as_it_is_told():
    assert (await Agent(a_config("echo", delay_seconds="0.01")).run(a_request())).text == "hello"


@pytest.mark.parametrize("delay", ["soon", "-1", "nan", "inf", "86400"])
def test_a_delay_that_is_no_delay_is_refused(delay: str):
    with pytest.raises(ConfigurationError, match="delay_seconds"):
        Agent(a_config("echo", delay_seconds=delay))
