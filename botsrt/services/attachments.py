"""Copies of the files that came with messages: kept when an agent fetched one, so that a replay has it for sure.

The content lies in a private folder under its digest, once however often it was sent; rows say who sent it to whom. It
is never served, and never trusted: what does not match its digest is not given out. A row without its file, or a file
without a row, costs no more than fetching again or some space until the next sweep.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet, Sum

from botsrt import conf
from botsrt.models import Contact, KeptFile

#: Rows removed in one transaction.
_CHUNK = 200

#: A file without a row may be about to get one for so long.
_GRACE = timedelta(hours=1)

#: What is half written; a process that dies leaves it.
_UNFINISHED = ".praisonweb-"

#: The names of our own in the folder, in which others may have theirs.
_SHELF = re.compile(r"[0-9a-f]{2}")
_CONTENT = re.compile(r"[0-9a-f]{64}")


def folder() -> Path:
    """Where the files are. Several hosts that are to share them share this folder."""
    named = conf.load().files_folder
    return Path(named).expanduser() if named else Path(settings.PRAISON_HOME) / "files"


# -- contents: for threads that may wait for a disk ----


def put(content: bytes) -> str:
    """Store a content, unless it is there already. Returns its digest.

    Raises:
        OSError: the disk does not take it.
    """
    digest = hashlib.sha256(content).hexdigest()
    path = _path(digest)
    if path.exists():
        os.utime(path)  # a sweep leaves it alone until its row is there
        return digest
    for made in (folder(), path.parent):  # parents that it makes itself would be open to others
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_UNFINISHED)  # for the owner alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    return digest


def read(digest: str) -> bytes | None:
    """The content; None: it is gone, or is not what it was."""
    try:
        content = _path(digest).read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == digest else None


def sweep() -> int:
    """Remove files of ours that no row names; what others have put beside them stays. Returns how many."""
    removed = 0
    for shelf in shelves():
        if old := old_on(shelf):
            removed += remove(old, named=named(digests=[path.name for path in old]))
    return removed


def shelves() -> list[Path]:
    """The folders of this host that may have contents of ours."""
    return sorted(path for path in folder().glob("??") if _SHELF.fullmatch(path.name) and path.is_dir())


def old_on(shelf: Path) -> list[Path]:
    """The contents on a shelf, and those half written, that are not about to get a row any more."""
    newest = time.time() - _GRACE.total_seconds()
    return [path for path in shelf.iterdir() if _is_ours(path) and _is_old(path, newest)]


def remove(paths: Iterable[Path], *, named: Collection[str]) -> int:
    """Remove those of ``old_on`` whose names are not among ``named``. Returns how many."""
    removed = 0
    for path in paths:
        if path.name not in named:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _is_ours(path: Path) -> bool:
    is_content = _CONTENT.fullmatch(path.name) is not None and path.name.startswith(path.parent.name)
    return is_content or path.name.startswith(_UNFINISHED)


def _is_old(path: Path, newest: float) -> bool:
    """Whether it is a file, last touched until ``newest`` (epoch seconds)."""
    try:
        found = path.lstat()
    except FileNotFoundError:  # another process was quicker
        return False
    return stat.S_ISREG(found.st_mode) and found.st_mtime <= newest


def _path(digest: str) -> Path:
    return folder() / digest[:2] / digest


# -- rows ----


def find(*, account: str, reference: str) -> str | None:
    """The digest of a file that was sent to this bot and is kept."""
    rows = KeptFile.objects.filter(account=account, reference=_digest_of(reference)).order_by("-pk")
    return rows.values_list("digest", flat=True).first()


def named(*, digests: Collection[str]) -> set[str]:
    """Those of the digests that a row names."""
    return set(KeptFile.objects.filter(digest__in=digests).values_list("digest", flat=True))


def keep(*, account: str, contact_id: int, reference: str, digest: str, size_bytes: int, now: datetime) -> None:
    """Write down that the contact sent this file to this bot; its content was ``put``.

    Of a contact that was erased meanwhile nothing is written; the sweep removes the content.
    """
    with transaction.atomic():
        # Locked: foreign keys are looked at in the commit, which belongs to others as well.
        if not Contact.objects.select_for_update(no_key=True).filter(pk=contact_id).exists():
            return
        KeptFile.objects.update_or_create(
            account=account,
            contact_id=contact_id,
            reference=_digest_of(reference),
            defaults={"digest": digest, "size_bytes": size_bytes, "kept_at": now},
        )


def forget(*, contact_ids: Collection[int]) -> int:
    """Remove what these contacts sent: the rows now, and at the commit the contents that nobody else sent, too.

    Returns how many files were forgotten.
    """
    return _remove(KeptFile.objects.filter(contact__in=contact_ids))


def expire(*, before: datetime, most_bytes: int) -> int:
    """Remove what was kept before, and the oldest beyond ``most_bytes`` in all. Returns how many files."""
    removed = _in_chunks(KeptFile.objects.filter(kept_at__lte=before))
    while (excess := (KeptFile.objects.aggregate(total=Sum("size_bytes"))["total"] or 0) - most_bytes) > 0:
        ids = []
        for pk, size in KeptFile.objects.order_by("kept_at", "pk").values_list("pk", "size_bytes")[:_CHUNK]:
            if excess <= 0:
                break
            ids.append(pk)
            excess -= size
        removed += _remove(KeptFile.objects.filter(pk__in=ids))
    return removed


def _in_chunks(rows: QuerySet[KeptFile]) -> int:
    removed = 0
    while ids := list(rows.order_by("pk").values_list("pk", flat=True)[:_CHUNK]):
        removed += _remove(KeptFile.objects.filter(pk__in=ids))
    return removed


def _remove(rows: QuerySet[KeptFile]) -> int:
    with transaction.atomic():
        digests = set(rows.values_list("digest", flat=True))
        count, _ = rows.delete()
        transaction.on_commit(lambda: _drop(digests))
        return count


def _drop(digests: Iterable[str]) -> None:
    """Remove the contents that no row names any more."""
    for digest in digests:
        if not KeptFile.objects.filter(digest=digest).exists():
            with suppress(OSError):  # the sweep finds it
                _path(digest).unlink(missing_ok=True)


def _digest_of(reference: str) -> str:
    return hashlib.sha256(reference.encode()).hexdigest()
