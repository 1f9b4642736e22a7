"""What a resolver is, what its answers mean, and what staff may call a person."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from botsrt.core.errors import InvalidInput
from botsrt.core.identity import (
    IdentityResolverProtocol,
    ListsLinks,
    checked_unified_id,
    is_linked,
    links_of,
    unlinked_id,
)


class Smallest:
    """A resolver with what the documents ask for, and nothing more."""

    def resolve(self, platform: str, platform_user_id: str) -> str:
        return unlinked_id(platform, platform_user_id)

    def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class ForeignLink:
    """As ``praisonaiagents`` answers ``links_for``."""

    platform: str
    platform_user_id: str
    unified_user_id: str


class Foreign(Smallest):
    def unlink(self, platform: str, platform_user_id: str) -> None:
        raise NotImplementedError

    def links_for(self, unified_user_id: str) -> list[ForeignLink]:
        return [ForeignLink("telegram", "12345", unified_user_id), ForeignLink("discord", "7", unified_user_id)]


class Pairs(Smallest):
    def unlink(self, platform: str, platform_user_id: str) -> bool:
        raise NotImplementedError

    def links_for(self, unified_user_id: str) -> list[tuple[str, str]]:
        return [("telegram", "12345"), ("discord", "7")]


def test_resolve_and_link_are_all_that_a_resolver_needs():
    assert isinstance(Smallest(), IdentityResolverProtocol)
    assert not isinstance(object(), IdentityResolverProtocol)


def test_a_resolver_tells_whether_it_lists_links():
    assert isinstance(Pairs(), ListsLinks)
    assert not isinstance(Smallest(), ListsLinks)


@pytest.mark.parametrize("resolver", [Pairs(), Foreign()])
def test_links_are_listed_as_sorted_pairs_whoever_lists_them(resolver):
    assert links_of(resolver, "alice") == [("discord", "7"), ("telegram", "12345")]


def test_a_resolver_that_lists_nothing_is_not_one_without_links():
    assert links_of(Smallest(), "alice") is None


@pytest.mark.parametrize("answer", [None, "", "  ", "telegram:12345", "bot_telegram_12345", "12345"])
def test_a_fallback_is_no_link(answer):
    assert not is_linked(answer, "telegram", "12345")


@pytest.mark.parametrize("answer", ["alice", "Alice Smith", "1234", "discord:12345", "bot_discord_12345", "telegram:1"])
def test_anything_else_names_a_person(answer):
    assert is_linked(answer, "telegram", "12345")


@pytest.mark.parametrize("text", ["alice", "a", "7", "alice.smith-2_x", "x" * 63, "bot", "bots_r_us"])
def test_a_slug_is_an_id_for_a_person(text):
    assert checked_unified_id(text) == text


@pytest.mark.parametrize(
    "text",
    ["", " ", "Alice", "alice ", "alice\n", "-alice", ".alice", "_alice", "al ice", "zoë", "a:b", "x" * 64, "\x00"],
)
def test_anything_else_is_refused_and_the_refusal_says_what_to_write(text):
    with pytest.raises(InvalidInput, match="write 1 to 63 lowercase letters") as refusal:
        checked_unified_id(text)
    assert refusal.value.field == "person"
    assert str(refusal.value).isprintable()


def test_a_person_cannot_take_the_name_of_a_session():
    with pytest.raises(InvalidInput, match="do not begin with 'bot_'"):
        checked_unified_id("bot_telegram_12345")
