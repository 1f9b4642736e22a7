"""Identity resolvers beside the database: in memory, in a file, or a class of one's own.

The file is shared with whoever else reads it, processes of ``praisonaiagents`` included. Source of its format:
``FileIdentityResolver`` of ``praisonaiagents.session`` (read in 1.7.17), which reads what we write, and the other way
round::

    {"links": {"telegram::12345": "alice", "discord::snowflake-1": "alice"}}

A key is the platform up to the first ``::``, then the user id; other keys beside ``links`` are kept. A write is whole
or not at all, loses no link that another of our processes writes at the same time, and never replaces a file that
cannot be read. (``praisonaiagents`` takes no lock between processes, reads the file once, and writes what it remembers:
while one of its processes runs, let it be the only one that writes.)
"""

from __future__ import annotations

import fcntl
import inspect
import json
import logging
import os
import pkgutil
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botsrt.core.errors import ConfigurationError, InvalidInput, StorageUnavailable
from botsrt.core.identity import IdentityResolverProtocol, is_linked, unlinked_id
from botsrt.core.messages import MAX_ID_CHARS
from botsrt.core.text import one_line, storable

#: Names the file, and where it is if nothing does. Source: the cross-platform session documents.
PATH_VARIABLE = "PRAISONAI_IDENTITY_PATH"
DEFAULT_PATH = "~/.praisonai/identity.json"

#: Bounds of one file. A lookup costs the same with one link or all; reading and writing the file does not.
MAX_LINKS = 100_000
MAX_FILE_BYTES = 16 * 1024 * 1024

#: Between platform and user id in a key of the file.
_SEPARATOR = "::"

_EXAMPLE = '{"links": {"telegram::12345": "alice"}}'

#: (platform, platform user id) → unified user id.
Links = Mapping[tuple[str, str], str]

logger = logging.getLogger(__name__)


# -- what every resolver here does ----


class _Resolver(ABC):
    """The methods of a resolver, over a mapping of links that is replaced and never changed."""

    @abstractmethod
    def _present(self) -> Links:
        """The links as they are now. Nobody changes this mapping later."""

    @abstractmethod
    def _editing(self) -> AbstractContextManager[dict[tuple[str, str], str]]:
        """A copy of the links to change; at the end of the block it takes their place, unless the block raises."""

    def resolve(self, platform: str, platform_user_id: str) -> str:
        """The person's unified user id, or ``platform:platform_user_id`` for a user without a link."""
        return self._present().get((platform, platform_user_id)) or unlinked_id(platform, platform_user_id)

    def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
        """Say that this user is that person; an earlier link of this user is replaced.

        Raises:
            InvalidInput: a name cannot be stored, or the person is called like a user without a link.
        """
        self.link_many({(platform, platform_user_id): unified_user_id})

    def link_many(self, links: Links) -> None:
        """Add ``links`` in one write; they replace earlier links of the same users. Raises like ``link``."""
        checked = _checked_persons(links)
        with self._editing() as edited:
            edited.update(checked)

    def replace(self, links: Links) -> None:
        """Make ``links`` the only ones, in one write. Raises like ``link``."""
        checked = _checked_persons(links)
        with self._editing() as edited:
            edited.clear()
            edited.update(checked)

    def unlink(self, platform: str, platform_user_id: str) -> bool:
        """End a link. False: there was none."""
        with self._editing() as edited:
            return edited.pop((platform, platform_user_id), None) is not None

    def links_for(self, unified_user_id: str) -> list[tuple[str, str]]:
        """The (platform, platform user id) pairs of a person, sorted."""
        return sorted(user for user, person in self._present().items() if person == unified_user_id)

    def all_links(self) -> dict[tuple[str, str], str]:
        """Every link: (platform, platform user id) → unified user id."""
        return dict(self._present())


class InMemoryIdentityResolver(_Resolver):
    """Links that end with the process: for tests."""

    def __init__(self) -> None:
        self._links: Links = {}
        self._writing = threading.Lock()

    def _present(self) -> Links:
        return self._links

    @contextmanager
    def _editing(self) -> Iterator[dict[tuple[str, str], str]]:
        with self._writing:
            edited = dict(self._links)
            yield edited
            self._links = _bounded(edited)


# -- links in a file ----


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What was in the file when it looked like ``stamp``."""

    stamp: tuple[int, ...] | None  # None: there was no file
    links: Links = field(default_factory=dict)
    beside: Mapping[str, object] = field(default_factory=dict)  # keys of others, kept
    problem: str = ""  # why it cannot be used


class FileIdentityResolver(_Resolver):
    """Links in one JSON file, readable by its owner alone. No file means no links.

    Any number of threads and processes of one machine may read and write. What another process wrote counts from the
    next call on: each call looks at the file's date, and reads the file only when that has changed.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Read the file.

        Args:
            path: the file, or a symbolic link to it; ``~`` is the home folder. Without it, ``PRAISONAI_IDENTITY_PATH``
                names the file, else it is ``~/.praisonai/identity.json``.

        Raises:
            ConfigurationError: the file cannot be used. So does every other method.
        """
        chosen = os.path.expanduser(path or os.environ.get(PATH_VARIABLE) or DEFAULT_PATH)
        if os.fspath(chosen).startswith("~"):
            raise ConfigurationError(f"{chosen}: there is no such home folder; write the whole path.")
        self.path = Path(chosen).absolute()
        self._reading = threading.Lock()
        self._writing = threading.Lock()  # beside the file's lock, which on NFS does not hold between threads
        self._has_warned_of_mode = False
        self._known = self._usable(self._read())

    def _present(self) -> Links:
        stamp = self._stamp()
        known = self._known
        if stamp != known.stamp:
            with self._reading:
                if stamp != self._known.stamp:  # no other thread has read it meanwhile
                    self._known = self._noted(self._read())
                known = self._known
        return self._usable(known).links

    @contextmanager
    def _editing(self) -> Iterator[dict[tuple[str, str], str]]:
        target = Path(os.path.realpath(self.path))
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._writing, _locked(target.with_name(f"{target.name}.lock")):
                before = self._usable(self._read())
                edited = dict(before.links)
                yield edited
                if edited != before.links:
                    text = _document(_bounded(edited), before.beside)
                    stamp = _write(target, text, newer_than=before.stamp)
                    self._known = _Contents(stamp=stamp, links=edited, beside=before.beside)
        except OSError as error:
            raise StorageUnavailable(f"{self.path}: the links were not written ({_reason(error)}).") from error

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            return _stamp_of(os.stat(self.path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from error

    def _read(self) -> _Contents:
        try:
            with open(self.path, "rb", opener=_open_without_waiting) as file:
                status = os.fstat(file.fileno())  # before reading: a change during it shows at the next look
                self._check_kind(status)
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return _Contents(stamp=None)
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            document = _parsed(content.decode("utf-8"))
            return _Contents(stamp=_stamp_of(status), links=_links_in(document), beside=_beside(document))
        except UnicodeDecodeError as error:
            return _Contents(stamp=_stamp_of(status), problem=f"it is not UTF-8 at byte {error.start}.")
        except InvalidInput as error:
            return _Contents(stamp=_stamp_of(status), problem=str(error))

    def _check_kind(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(f"{self.path}: this is no file; name another path for the identity links.")
        if stat.S_IMODE(status.st_mode) & 0o077 and not self._has_warned_of_mode:
            self._has_warned_of_mode = True
            logger.warning(
                "%s can be read by other users of this machine (mode %o); the next change of a link makes it 600",
                self.path,
                stat.S_IMODE(status.st_mode),
            )

    def _noted(self, contents: _Contents) -> _Contents:
        if contents.stamp is None and self._known.links:
            logger.warning("%s is gone; nobody is linked now", self.path)
        return contents

    def _usable(self, contents: _Contents) -> _Contents:
        if contents.problem:
            raise ConfigurationError(
                f"{self.path}: {contents.problem} Nothing was changed; correct the file, or move it away to begin anew."
            )
        return contents

    def _unreadable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path}: it cannot be read ({_reason(error)}); let user id {os.geteuid()} read it, or name another "
            f"file in {PATH_VARIABLE}."
        )


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe in the file's place would be waited for


def _stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """Differs when the file does. ``ctime`` shows a change of the mode, after which an unreadable file is readable."""
    return (status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time. The lock's file stays: who removes it lets two in."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing does not, if a fork of this process has it too
        os.close(descriptor)


def _write(target: Path, text: str, *, newer_than: tuple[int, ...] | None) -> tuple[int, ...]:
    """Put a file with ``text`` in the place of ``target``, whole or not at all; the caller holds the lock.

    Returns:
        The new file's stamp. Its date is later than the old one's, however short the time between: the clock of a file
        system ticks slowly, and the number of a replaced file is soon used again.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    with suppress(FileNotFoundError):
        temporary.unlink()  # of a process that died
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", closefd=True) as file:
            file.write(text)
            file.flush()
            if newer_than is not None and os.fstat(descriptor).st_mtime_ns <= newer_than[0]:
                os.utime(descriptor, ns=(newer_than[0] + 1, newer_than[0] + 1))
            os.fsync(descriptor)
            os.replace(temporary, target)
            stamp = _stamp_of(os.fstat(descriptor))
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)
    return stamp


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


# -- the file's format ----


def read_links(text: str) -> dict[tuple[str, str], str]:
    """The links that a file's text holds: (platform, platform user id) → unified user id. Other keys do not matter.

    Raises:
        InvalidInput: it is not such a file; says in which line or key.
    """
    return _links_in(_parsed(text))


def write_links(links: Links) -> str:
    """The text of a file with ``links``, sorted; ``read_links`` gives them back. ASCII, so an editor hides nothing.

    Raises:
        InvalidInput: a name cannot be stored, or there are too many; says which.
    """
    for (platform, platform_user_id), unified_user_id in links.items():
        _check_link(platform, platform_user_id, unified_user_id)
    return _document(_bounded(links), {})


def _parsed(text: str) -> dict[str, Any]:
    if len(text) > MAX_FILE_BYTES:
        raise InvalidInput("links", f"more than {MAX_FILE_BYTES:,} bytes are not read.")
    try:
        document = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_unambiguous)
    except json.JSONDecodeError as error:
        raise InvalidInput("links", f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput("links", f"not usable JSON: {one_line(str(error))}.") from error
    if not isinstance(document, dict) or not isinstance(document.get("links"), dict):
        raise InvalidInput("links", f"they are missing; the form is {_EXAMPLE}.")
    return document


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise InvalidInput("links", f"the key {_shown(key)} is there twice, with different values.")
        found[key] = value
    return found


def _links_in(document: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    links: dict[tuple[str, str], str] = {}
    for key, unified_user_id in document["links"].items():
        platform, separator, platform_user_id = key.partition(_SEPARATOR)
        if not separator:
            raise InvalidInput("links", f"{_shown(key)}: the form of a key is platform::user_id.")
        if not isinstance(unified_user_id, str):
            raise InvalidInput("links", f"{_shown(key)}: the person must be a text.")
        _check_link(platform, platform_user_id, unified_user_id)
        links[platform, platform_user_id] = unified_user_id
    return dict(_bounded(links))


def _beside(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "links"}


def _document(links: Links, beside: Mapping[str, object]) -> str:
    encoded = {f"{platform}{_SEPARATOR}{user}": links[platform, user] for platform, user in sorted(links)}
    text = json.dumps({**beside, "links": encoded}, indent=2) + "\n"
    if len(text) > MAX_FILE_BYTES:
        raise InvalidInput("links", f"they would take more than {MAX_FILE_BYTES:,} bytes; keep them in the database.")
    return text


def _bounded(links: Links) -> Links:
    if len(links) > MAX_LINKS:
        raise InvalidInput("links", f"there are {len(links):,}; at most {MAX_LINKS:,} are possible.")
    return links


def _check_link(platform: str, platform_user_id: str, unified_user_id: str) -> None:
    """Refuse what would not come back from the file as it went in, or no database could hold."""
    where = _shown(f"{platform}{_SEPARATOR}{platform_user_id}")
    parts = {"platform": platform, "user id": platform_user_id, "person": unified_user_id}
    for name, value in parts.items():
        if not value.strip():
            raise InvalidInput("links", f"{where}: the {name} is empty.")
        if len(value) > MAX_ID_CHARS:
            raise InvalidInput("links", f"{where}: the {name} is longer than {MAX_ID_CHARS} characters.")
        if storable(value) != value:
            raise InvalidInput("links", f"{where}: the {name} holds NUL or half a character; leave it out.")
    if _SEPARATOR in platform or platform.endswith(":"):
        raise InvalidInput("links", f"{where}: a platform's name neither holds '::' nor ends with ':'.")


def _checked_persons(links: Links) -> Links:
    for (platform, platform_user_id), unified_user_id in links.items():
        _check_link(platform, platform_user_id, unified_user_id)
        if not is_linked(unified_user_id, platform, platform_user_id):
            raise InvalidInput(
                "person",
                f"{_shown(unified_user_id)} is what the user {_shown(platform_user_id)} is called without a link; "
                "choose another name for the person.",
            )
    return links


def _shown(text: str) -> str:
    return one_line(repr(text), max_chars=80)


# -- the resolver that the settings name ----


def load(name: str) -> IdentityResolverProtocol | None:
    """The resolver called ``name``; None for ``database``, whose tables need none.

    Args:
        name: ``database``, ``file``, ``memory``, or ``package.module:Name`` (``package.module.Name`` will do) of a
            resolver, or of a class or function that makes one without arguments.

    Raises:
        ConfigurationError: there is no such resolver, or it lacks something; says what.
    """
    match name:
        case "database":
            return None
        case "file":
            return FileIdentityResolver()
        case "memory":
            return InMemoryIdentityResolver()
    if "." not in name and ":" not in name:
        raise ConfigurationError(
            f"identity resolver: {name!r} is not known; write database, file, memory, or package.module:Name."
        )
    return _checked_resolver(name, _made(name, _imported(name)))


def _imported(name: str) -> Any:
    module, _, attribute = name.rpartition(":" if ":" in name else ".")
    try:
        return pkgutil.resolve_name(f"{module}:{attribute}")
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"identity resolver: {name!r} could not be imported ({type(error).__name__}: {error}); the form is "
            "package.module:Name."
        ) from error


def _made(name: str, found: Any) -> Any:
    is_ready = isinstance(found, IdentityResolverProtocol) and not inspect.isclass(found)
    if is_ready or not callable(found):
        return found
    try:
        return found()
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"identity resolver: {name} could not be made without arguments ({type(error).__name__}: {error})."
        ) from error


def _checked_resolver(name: str, made: Any) -> IdentityResolverProtocol:
    methods = {
        "resolve(platform, platform_user_id)": getattr(made, "resolve", None),
        "link(platform, platform_user_id, unified_user_id)": getattr(made, "link", None),
    }
    for signature, method in methods.items():
        if not callable(method):
            raise ConfigurationError(f"identity resolver: {name} ({type(made).__name__}) lacks the method {signature}.")
        if inspect.iscoroutinefunction(method):
            raise ConfigurationError(f"identity resolver: {name}: {signature} must not be async.")
    resolver: IdentityResolverProtocol = made
    return resolver
