"""Identity links in memory and in a file that several processes share."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botsrt.core.errors import ConfigurationError, InvalidInput, StorageUnavailable
from botsrt.core.identity import IdentityResolverProtocol, ListsLinks, is_linked
from botsrt.services import resolvers
from botsrt.services.resolvers import FileIdentityResolver, InMemoryIdentityResolver, read_links, write_links

#: As ``praisonaiagents`` 1.7.17 writes it.
THEIRS = """{
  "links": {
    "telegram::12345": "alice",
    "discord::snowflake-1": "alice",
    "slack::U::7": "Zoë Ω"
  }
}"""

LINKS = {("telegram", "12345"): "alice", ("discord", "snowflake-1"): "alice", ("slack", "U::7"): "Zoë Ω"}

_PROJECT = Path(__file__).parents[2]

#: Longest wait for another process.
_DEADLINE_SECONDS = 60.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "links" / "identity.json"


@pytest.fixture(params=["memory", "file"])
def resolver(request, path):
    return InMemoryIdentityResolver() if request.param == "memory" else FileIdentityResolver(path)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def another_process(code: str, *args: object) -> subprocess.Popen[str]:
    """A process that runs ``code``, which sees the names of the module ``resolvers`` and ``sys``."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys\nfrom botsrt.services.resolvers import *\n{code}", *map(str, args)],
        cwd=_PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=_DEADLINE_SECONDS)
    assert process.returncode == 0, errors
    return out


# -- every resolver ----


def test_a_resolver_is_one(resolver):
    assert isinstance(resolver, IdentityResolverProtocol)
    assert isinstance(resolver, ListsLinks)


def test_accounts_that_are_linked_are_one_person(resolver):
    resolver.link("telegram", "12345", "alice")
    resolver.link("discord", "snowflake-1", "alice")
    assert resolver.resolve("telegram", "12345") == "alice"
    assert resolver.resolve("discord", "snowflake-1") == "alice"
    assert resolver.links_for("alice") == [("discord", "snowflake-1"), ("telegram", "12345")]


@pytest.mark.parametrize("user", ["12345", "", "a\x00b", "\ud800"])
def test_a_user_without_a_link_is_themself(resolver, user):
    assert resolver.resolve("telegram", user) == f"telegram:{user}"
    assert not is_linked(resolver.resolve("telegram", user), "telegram", user)


def test_one_user_id_on_two_platforms_is_two_users(resolver):
    resolver.link("telegram", "1", "alice")
    assert resolver.resolve("discord", "1") == "discord:1"


def test_a_new_link_replaces_the_old_one(resolver):
    resolver.link("telegram", "1", "alice")
    resolver.link("telegram", "1", "bob")
    assert resolver.resolve("telegram", "1") == "bob"
    assert resolver.links_for("alice") == []


def test_unlink_says_whether_there_was_a_link(resolver):
    resolver.link("telegram", "1", "alice")
    assert resolver.unlink("telegram", "1") is True
    assert resolver.unlink("telegram", "1") is False
    assert resolver.resolve("telegram", "1") == "telegram:1"


def test_many_links_are_added_to_the_others(resolver):
    resolver.link("web", "1", "carol")
    resolver.link_many(LINKS)
    assert resolver.all_links() == {**LINKS, ("web", "1"): "carol"}


def test_replace_leaves_no_other_link(resolver):
    resolver.link("web", "1", "carol")
    resolver.replace(LINKS)
    assert resolver.all_links() == LINKS
    resolver.replace({})
    assert resolver.all_links() == {}


def test_what_all_links_returned_is_the_callers_own(resolver):
    resolver.link("telegram", "1", "alice")
    resolver.all_links().clear()
    assert resolver.resolve("telegram", "1") == "alice"


@pytest.mark.parametrize("person", ["1", "telegram:1", "bot_telegram_1"])
def test_a_person_cannot_be_called_like_a_user_without_a_link(resolver, person):
    with pytest.raises(InvalidInput, match="choose another name for the person"):
        resolver.link("telegram", "1", person)


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        (("", "1", "alice"), "the platform is empty"),
        (("telegram", " ", "alice"), "the user id is empty"),
        (("telegram", "1", ""), "the person is empty"),
        (("telegram", "1\x00", "alice"), "the user id holds NUL"),
        (("telegram", "1", "al\ud800ice"), "the person holds NUL or half a character"),
        (("telegram", "1" * 201, "alice"), "the user id is longer than 200"),
        (("a::b", "1", "alice"), "neither holds '::'"),
        (("a:", "1", "alice"), "nor ends with ':'"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_nothing_is_changed(resolver, link, problem):
    platform, user, person = link
    with pytest.raises(InvalidInput, match=problem) as refusal:
        resolver.link_many({("web", "9"): "bob", (platform, user): person})
    assert str(refusal.value).isprintable()
    assert resolver.all_links() == {}


def test_there_is_a_bound(resolver, monkeypatch):
    monkeypatch.setattr(resolvers, "MAX_LINKS", 2)
    with pytest.raises(InvalidInput, match="there are 3; at most 2"):
        resolver.link_many({("web", str(number)): "alice" for number in range(3)})
    assert resolver.all_links() == {}


def test_threads_lose_no_link(resolver):
    def write(name):
        for number in range(25):
            resolver.link("telegram", f"{name}-{number}", f"person-{name}")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_DEADLINE_SECONDS)
    assert len(resolver.all_links()) == 100


# -- where the file is ----


def test_the_environment_names_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PRAISONAI_IDENTITY_PATH", "~/elsewhere.json")
    assert FileIdentityResolver().path == tmp_path / "elsewhere.json"


@pytest.mark.parametrize("value", [None, ""])
def test_the_file_is_in_the_home_folder_otherwise(monkeypatch, tmp_path, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PRAISONAI_IDENTITY_PATH", raising=False)
    if value is not None:
        monkeypatch.setenv("PRAISONAI_IDENTITY_PATH", value)
    assert FileIdentityResolver().path == tmp_path / ".praisonai" / "identity.json"


def test_a_path_given_wins_and_may_begin_with_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PRAISONAI_IDENTITY_PATH", "/nowhere")
    assert FileIdentityResolver("~/mine.json").path == tmp_path / "mine.json"


def test_a_home_folder_that_does_not_exist_is_no_folder_called_tilde():
    with pytest.raises(ConfigurationError, match="no such home folder"):
        FileIdentityResolver("~nobody-of-this-name/identity.json")


def test_looking_makes_no_file(path):
    assert FileIdentityResolver(path).resolve("telegram", "1") == "telegram:1"
    assert not path.parent.exists()


def test_folder_file_and_lock_are_for_the_owner_alone(path):
    old = os.umask(0)
    try:
        FileIdentityResolver(path).link("telegram", "1", "alice")
    finally:
        os.umask(old)
    assert mode_of(path.parent) == 0o700
    assert {entry.name: mode_of(entry) for entry in path.parent.iterdir()} == {
        "identity.json": 0o600,
        "identity.json.lock": 0o600,
    }


def test_a_wider_mode_is_told_once_and_narrowed_by_the_next_write(path, caplog):
    path.parent.mkdir()
    path.write_text(THEIRS)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        resolver = FileIdentityResolver(path)
        path.touch()
        assert resolver.resolve("telegram", "12345") == "alice"
        assert mode_of(path) == 0o644
        resolver.link("telegram", "2", "bob")
    assert mode_of(path) == 0o600
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} can be read by other users of this machine (mode 644); the next change of a link makes it 600"
    ]


def test_a_symbolic_link_stays_one(path, tmp_path):
    FileIdentityResolver(path).link("telegram", "1", "alice")
    alias = tmp_path / "alias.json"
    alias.symlink_to(path)
    resolver = FileIdentityResolver(alias)
    resolver.link("telegram", "2", "bob")
    assert alias.is_symlink()
    assert FileIdentityResolver(path).all_links() == {("telegram", "1"): "alice", ("telegram", "2"): "bob"}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["alias.json", "links"]


def test_a_symbolic_link_may_come_before_its_file(path, tmp_path):
    alias = tmp_path / "alias.json"
    alias.symlink_to(path)
    FileIdentityResolver(alias).link("telegram", "1", "alice")
    assert FileIdentityResolver(path).resolve("telegram", "1") == "alice"


# -- the file's content ----


def test_links_outlive_the_object(path):
    FileIdentityResolver(path).link("telegram", "1", "alice")
    assert FileIdentityResolver(path).resolve("telegram", "1") == "alice"


def test_a_file_of_praisonaiagents_is_read(path):
    path.parent.mkdir()
    path.write_text(THEIRS, encoding="utf-8")
    path.chmod(0o600)
    assert FileIdentityResolver(path).all_links() == LINKS


def test_praisonaiagents_reads_ours(path):
    FileIdentityResolver(path).link_many(LINKS)
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(THEIRS)


def test_keys_of_others_are_kept(path):
    path.parent.mkdir()
    path.write_text('{"version": 3, "x": {"n": NaN, "half": "\\ud800"}, "links": {}}')
    path.chmod(0o600)
    FileIdentityResolver(path).link("telegram", "1", "alice")
    kept = json.loads(path.read_text())
    assert kept["version"] == 3
    assert kept["x"]["half"] == "\ud800"
    assert kept["links"] == {"telegram::1": "alice"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "line 1, column 1: not JSON"),
        (b'{"links": {\n"telegram::1": "al', "line 2, column 16: not JSON"),
        (b"\xff", "it is not UTF-8 at byte 0"),
        (b"[]", "they are missing; the form is"),
        (b'{"links": {"telegram::1": 7}}', "'telegram::1': the person must be a text"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_and_kept(path, content, problem):
    resolver = FileIdentityResolver(path)
    resolver.link("telegram", "1", "alice")
    path.write_bytes(content)
    calls: list[Callable[[], object]] = [
        lambda: resolver.resolve("telegram", "1"),
        resolver.all_links,
        lambda: resolver.link("telegram", "2", "bob"),
        lambda: resolver.unlink("telegram", "1"),
        lambda: resolver.replace({}),
        lambda: FileIdentityResolver(path),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match=problem) as error:
            call()
        assert str(path) in str(error.value)
        assert "correct the file, or move it away" in str(error.value)
    assert path.read_bytes() == content
    path.write_text(THEIRS)
    assert resolver.resolve("telegram", "12345") == "alice"


def test_a_broken_file_is_not_read_again_for_every_message(path, monkeypatch):
    resolver = FileIdentityResolver(path)
    resolver.link("telegram", "1", "alice")
    path.write_text("broken")
    with pytest.raises(ConfigurationError):
        resolver.resolve("telegram", "1")
    monkeypatch.setattr(resolver, "_read", lambda: pytest.fail("read again"))
    with pytest.raises(ConfigurationError, match="not JSON"):
        resolver.resolve("telegram", "1")


def test_a_file_that_is_too_large_is_not_read_to_its_end(path, monkeypatch):
    monkeypatch.setattr(resolvers, "MAX_FILE_BYTES", 100)
    path.parent.mkdir()
    path.write_text('{"links": {}, "x": "' + 200 * "x" + '"}')
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="more than 100 bytes are not read"):
        FileIdentityResolver(path)


def test_nothing_is_written_that_could_not_be_read_again(path, monkeypatch):
    resolver = FileIdentityResolver(path)
    resolver.link("telegram", "1", "alice")
    monkeypatch.setattr(resolvers, "MAX_FILE_BYTES", 100)
    with pytest.raises(InvalidInput, match="would take more than 100 bytes"):
        resolver.link("telegram", "2", "b" * 90)
    assert resolver.all_links() == {("telegram", "1"): "alice"}


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: os.mkfifo(path, 0o600)])
def test_a_folder_or_a_pipe_is_no_file(tmp_path, make):
    make(tmp_path / "identity.json")
    with pytest.raises(ConfigurationError, match=r"identity\.json: (it cannot be read|this is no file)"):
        FileIdentityResolver(tmp_path / "identity.json")


def test_a_path_through_a_file_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="it cannot be read"):
        FileIdentityResolver(tmp_path / "file" / "identity.json")


def test_a_file_without_permission_is_told_and_used_when_it_is_given(path, monkeypatch):
    resolver = FileIdentityResolver(path)
    FileIdentityResolver(path).link("telegram", "1", "alice")

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(resolvers, "_open_without_waiting", refuse)
        for call in (lambda: resolver.resolve("telegram", "1"), lambda: resolver.link("telegram", "2", "bob")):
            with pytest.raises(ConfigurationError, match="it cannot be read \\(Permission denied\\)"):
                call()
    assert resolver.resolve("telegram", "1") == "alice"


# -- writing ----


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch, step):
    resolver = FileIdentityResolver(path)
    resolver.link("telegram", "1", "alice")
    before = path.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(StorageUnavailable, match="not written \\(No space left on device\\)"):
            resolver.link("telegram", "2", "bob")
    assert path.read_bytes() == before
    assert resolver.all_links() == {("telegram", "1"): "alice"}
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["identity.json", "identity.json.lock"]
    resolver.link("telegram", "2", "bob")
    assert FileIdentityResolver(path).resolve("telegram", "2") == "bob"


def test_a_process_killed_in_a_write_leaves_the_old_file_and_no_lock(path):
    FileIdentityResolver(path).link("telegram", "1", "alice")
    code = """
import os, signal
os.replace = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
FileIdentityResolver(sys.argv[1]).link("telegram", "2", "bob")
"""
    killed = another_process(code, path)
    killed.communicate(timeout=_DEADLINE_SECONDS)
    assert killed.returncode == -9
    assert FileIdentityResolver(path).all_links() == {("telegram", "1"): "alice"}
    FileIdentityResolver(path).link("telegram", "3", "carol")
    assert FileIdentityResolver(path).all_links() == {("telegram", "1"): "alice", ("telegram", "3"): "carol"}
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["identity.json", "identity.json.lock"]


def test_the_file_and_its_folder_are_on_disk_before_link_returns(path, monkeypatch):
    resolver = FileIdentityResolver(path)
    resolver.link("telegram", "1", "alice")
    done = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noted_replace(*args):
        done.append("replace")
        replace(*args)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    resolver.link_many(LINKS)
    assert done == ["file", "replace", "folder"]
    resolver.link_many(LINKS)
    assert len(done) == 3  # nothing changed, nothing written


def test_each_write_has_a_later_date_however_short_the_time_between(path):
    resolver = FileIdentityResolver(path)
    resolver.link("telegram", "1", "alice")
    os.utime(path, ns=(2**62, 2**62))  # a clock that was wrong for a while
    resolver.link("telegram", "2", "bob")
    assert os.stat(path).st_mtime_ns > 2**62
    assert resolver.resolve("telegram", "2") == "bob"


# -- several processes ----


def test_two_processes_lose_no_link(path):
    code = """
resolver = FileIdentityResolver(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(200):
    resolver.link("telegram", f"{sys.argv[2]}-{number}", f"person-{number}")
"""
    processes = [another_process(code, path, name) for name in ("a", "b")]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        ended(process)
    assert FileIdentityResolver(path).all_links() == {
        ("telegram", f"{name}-{number}"): f"person-{number}" for name in ("a", "b") for number in range(200)
    }


def test_a_change_by_another_process_is_seen_at_the_next_call(path, caplog):
    resolver = FileIdentityResolver(path)
    assert resolver.resolve("telegram", "1") == "telegram:1"
    ended(another_process('FileIdentityResolver(sys.argv[1]).link("telegram", "1", "alice")', path))
    assert resolver.resolve("telegram", "1") == "alice"
    ended(another_process('FileIdentityResolver(sys.argv[1]).link("telegram", "1", "carol")', path))
    assert resolver.resolve("telegram", "1") == "carol"
    ended(another_process('FileIdentityResolver(sys.argv[1]).unlink("telegram", "1")', path))
    assert resolver.resolve("telegram", "1") == "telegram:1"


def test_changes_of_equal_size_at_one_moment_are_seen(path):
    reader, writer = FileIdentityResolver(path), FileIdentityResolver(path)
    for number in range(100, 200):
        writer.link("telegram", "1", f"person-{number}")
        if number % 2:  # a file's number is used again after every second write
            assert reader.resolve("telegram", "1") == f"person-{number}"


def test_a_file_that_vanishes_ends_the_links_and_is_told(path, caplog):
    resolver = FileIdentityResolver(path)
    resolver.link("telegram", "1", "alice")
    path.unlink()
    assert resolver.resolve("telegram", "1") == "telegram:1"
    assert resolver.resolve("telegram", "1") == "telegram:1"
    assert [record.getMessage() for record in caplog.records] == [f"{path} is gone; nobody is linked now"]


def test_readers_do_not_wait_for_a_writer(path):
    resolver = FileIdentityResolver(path)
    resolver.link("telegram", "1", "alice")
    with open(f"{path}.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writer = threading.Thread(target=resolver.link, args=("telegram", "2", "bob"))
        writer.start()
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not resolver._writing.locked() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert resolver.resolve("telegram", "1") == "alice"
        assert resolver.resolve("telegram", "2") == "telegram:2"
        fcntl.flock(lock, fcntl.LOCK_UN)
    writer.join(_DEADLINE_SECONDS)
    assert resolver.resolve("telegram", "2") == "bob"


def test_resolve_costs_one_look_at_the_date(path, monkeypatch):
    resolver = FileIdentityResolver(path)
    resolver.link("telegram", "1", "alice")
    looks = []
    look = os.stat

    def counted(*args, **options):
        looks.append(args)
        return look(*args, **options)

    monkeypatch.setattr(os, "stat", counted)
    monkeypatch.setattr(resolver, "_read", lambda: pytest.fail("the file was read"))
    for _ in range(10):
        assert resolver.resolve("telegram", "1") == "alice"
        assert resolver.resolve("telegram", "2") == "telegram:2"
    assert len(looks) == 20


# -- the format ----

anything = st.text(st.characters(), min_size=1, max_size=20)
storable_links = st.dictionaries(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters=":\x00"), min_size=1, max_size=20),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20),
    ).filter(lambda user: user[0].strip() and user[1].strip()),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1).filter(str.strip),
    max_size=5,
)


@given(storable_links)
def test_links_come_back_as_they_were_written(links):
    text = write_links(links)
    assert text.isascii()
    assert read_links(text) == links


@given(anything, anything, anything)
def test_any_link_comes_back_or_is_refused(platform, user, person):
    links = {(platform, user): person}
    try:
        text = write_links(links)
    except InvalidInput:
        return
    assert read_links(text) == links


@given(anything, anything, anything)
def test_any_link_outlives_the_file_or_is_refused(tmp_path_factory, platform, user, person):
    path = tmp_path_factory.mktemp("links") / "identity.json"
    try:
        FileIdentityResolver(path).link(platform, user, person)
    except InvalidInput:
        assert not path.exists()
        return
    assert FileIdentityResolver(path).resolve(platform, user) == person


def test_a_link_that_only_the_database_can_tell_is_still_exported():
    assert read_links(write_links({("web", "alice"): "alice"})) == {("web", "alice"): "alice"}


def test_the_text_is_sorted_and_ends_with_a_line_break():
    text = write_links({("telegram", "2"): "b", ("telegram", "1"): "b", ("discord", "3"): "a"})
    assert list(json.loads(text)["links"]) == ["discord::3", "telegram::1", "telegram::2"]
    assert text.endswith("}\n")


def test_a_byte_order_mark_does_not_matter():
    assert read_links("\ufeff" + THEIRS) == LINKS


def test_a_key_that_is_there_twice_alike_does_not_matter():
    assert read_links('{"links": {"a::1": "x", "a::1": "x"}, "n": NaN}') == {("a", "1"): "x"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"links": {"a::1": "x", "a::1": "y"}}', "the key 'a::1' is there twice"),
        ('{"links": {}, "links": {"a::1": "y"}}', "the key 'links' is there twice"),
        ('{"links": {"a::1": "x"},\n nonsense}', "line 2, column 2: not JSON"),
        ('{"links": []}', "they are missing"),
        ('{"link": {"a::1": "x"}}', "they are missing"),
        ("7", "they are missing"),
        ('{"links": {"a:1": "x"}}', "'a:1': the form of a key is platform::user_id"),
        ('{"links": {"::1": "x"}}', "'::1': the platform is empty"),
        ('{"links": {"a::": "x"}}', "'a::': the user id is empty"),
        ('{"links": {"a::1": ""}}', "'a::1': the person is empty"),
        ('{"links": {"a::1": null}}', "'a::1': the person must be a text"),
        ('{"links": {"a::1\\u0000": "x"}}', "the user id holds NUL"),
        ('{"links": {"a::1": "\\ud800"}}', "the person holds NUL or half a character"),
        ("[" * 100_000, "not usable JSON"),
        ('{"x": ' + "9" * 5_000 + ', "links": {}}', "not usable JSON"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(text, problem):
    with pytest.raises(InvalidInput, match=problem) as refusal:
        read_links(text)
    assert refusal.value.field == "links"


def test_names_in_a_refusal_cannot_break_its_line():
    with pytest.raises(InvalidInput) as refusal:
        read_links(json.dumps({"links": {"\u202e\n\x1b[31m" + 500 * "x": "y"}}))
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 200


# -- the resolver that the settings name ----


class Ready:
    def resolve(self, platform: str, platform_user_id: str) -> str:
        return "alice"

    def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
        raise NotImplementedError


class ReadOnly:
    def resolve(self, platform: str, platform_user_id: str) -> str:
        raise NotImplementedError


class Asynchronous(ReadOnly):
    async def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
        raise NotImplementedError


class NeedsArguments(Ready):
    def __init__(self, url: str) -> None:
        raise NotImplementedError


def make_ready() -> Ready:
    return Ready()


def make_misconfigured() -> Ready:
    raise ConfigurationError("REDIS_URL is missing.")


READY = Ready()
NUMBER = 7


def test_the_database_needs_no_resolver():
    assert resolvers.load("database") is None


def test_file_and_memory_are_ours(monkeypatch, path):
    monkeypatch.setenv("PRAISONAI_IDENTITY_PATH", str(path))
    from_file = resolvers.load("file")
    assert isinstance(from_file, FileIdentityResolver)
    assert from_file.path == path
    assert isinstance(resolvers.load("memory"), InMemoryIdentityResolver)


@pytest.mark.parametrize("name", [":Ready", ".Ready", ":make_ready", ":READY", ".READY"])
def test_a_class_a_function_or_an_object_can_be_named(name):
    loaded = resolvers.load(__name__ + name)
    assert isinstance(loaded, Ready)
    assert loaded.resolve("telegram", "1") == "alice"


def test_an_object_is_used_as_it_is():
    assert resolvers.load(f"{__name__}:READY") is READY


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("postgres", "'postgres' is not known; write database, file, memory, or package.module:Name"),
        ("", "'' is not known"),
        ("no_such_module.Name", "could not be imported \\(ModuleNotFoundError: No module named 'no_such_module'"),
        (f"{__name__}:Missing", "could not be imported \\(AttributeError"),
        ("a..b", "could not be imported \\(ValueError"),
        (f"{__name__}:ReadOnly", r"\(ReadOnly\) lacks the method link\(platform, platform_user_id, unified_user_id\)"),
        (f"{__name__}:NUMBER", r"\(int\) lacks the method resolve\(platform, platform_user_id\)"),
        (f"{__name__}:Asynchronous", r"link\(.*\) must not be async"),
        (f"{__name__}:NeedsArguments", "could not be made without arguments \\(TypeError: "),
        (f"{__name__}:make_misconfigured", "^REDIS_URL is missing.$"),
    ],
)
def test_a_resolver_that_cannot_be_used_is_told(name, problem):
    with pytest.raises(ConfigurationError, match=problem):
        resolvers.load(name)
