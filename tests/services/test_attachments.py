"""Copies of files: stored once, forgotten with who sent them, removed by age and size."""

from __future__ import annotations

import os
import stat
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from botsrt import conf, tasks
from botsrt.core.messages import Sender
from botsrt.models import Contact, KeptFile
from botsrt.services import attachments, identity
from tests.factories import NOW, later

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.BOTSRT = {"FILES_FOLDER": str(tmp_path / "files")}
    conf.load.cache_clear()
    return tmp_path / "files"


def sent(content: bytes, *, by: str = "ann", reference: str = "f1", days: float = 0) -> str:
    contact = identity.contact_seen(platform="web", sender=Sender(user_id=by), now=NOW)
    digest = attachments.put(content)
    attachments.keep(
        account="shop",
        contact_id=contact.pk,
        reference=reference,
        digest=digest,
        size_bytes=len(content),
        now=later(days=days),
    )
    return digest


def stored(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*/*"))


def contact(user_id: str) -> int:
    return Contact.objects.get(platform_user_id=user_id).pk


def test_a_content_is_stored_once_for_its_owner_alone(folder):
    one, two = sent(b"a picture"), sent(b"a picture", by="bob", reference="f2")
    assert one == two
    assert stored(folder) == [one]
    (path,) = folder.glob("*/*")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert KeptFile.objects.count() == 2


def test_it_is_found_by_bot_and_reference():
    long = "https://files.example.org/" + "x" * 3_000
    digest = sent(b"a picture", reference=long)
    assert attachments.find(account="shop", reference=long) == digest
    assert attachments.read(digest) == b"a picture"
    assert attachments.find(account="other", reference=long) is None
    assert attachments.find(account="shop", reference="f2") is None


def test_one_that_came_again_is_one_row():
    sent(b"a picture")
    sent(b"a picture", days=3)
    assert KeptFile.objects.get().kept_at == later(days=3)


def test_what_somebody_sent_is_forgotten_with_what_nobody_else_sent(folder, django_capture_on_commit_callbacks):
    shared, own, other = sent(b"shared"), sent(b"own", reference="f2"), sent(b"other", by="bob", reference="f3")
    sent(b"shared", by="bob", reference="f4")
    with django_capture_on_commit_callbacks(execute=True):
        assert attachments.forget(contact_ids=[contact("ann")]) == 2
    assert stored(folder) == sorted([shared, other])
    assert attachments.read(own) is None
    assert set(KeptFile.objects.values_list("contact", flat=True)) == {contact("bob")}


def test_forgetting_that_is_undone_removes_nothing(folder, django_capture_on_commit_callbacks):
    digest = sent(b"own")
    with django_capture_on_commit_callbacks(execute=False):
        attachments.forget(contact_ids=[contact("ann")])
    assert stored(folder) == [digest]


def test_old_ones_are_removed(folder, django_capture_on_commit_callbacks):
    sent(b"old")
    young = sent(b"young", reference="f2", days=29)
    with django_capture_on_commit_callbacks(execute=True):
        assert attachments.expire(before=later(days=1), most_bytes=10_000) == 1
    assert stored(folder) == [young]


def test_the_oldest_are_removed_where_they_are_too_many(folder, django_capture_on_commit_callbacks):
    digests = [sent(b"%02d" % number * 50, reference=f"f{number}", days=number) for number in range(5)]
    with django_capture_on_commit_callbacks(execute=True):
        assert attachments.expire(before=NOW - timedelta(days=1), most_bytes=250) == 3
    assert stored(folder) == sorted(digests[3:])


def test_a_file_without_a_row_is_swept_when_it_cannot_be_about_to_get_one(folder):
    known, new, old = sent(b"known"), attachments.put(b"new"), attachments.put(b"old")
    for digest in (known, old):
        path = folder / digest[:2] / digest
        os.utime(path, (time.time() - 7_200, time.time() - 7_200))
    assert attachments.sweep() == 1
    assert stored(folder) == sorted([known, new])


def test_the_sweep_leaves_alone_what_others_have_in_the_folder(folder):
    digest = "ab" + "0" * 62
    (folder / "ab" / f"{digest[:-1]}1").mkdir(parents=True)  # a folder with the name of a content
    strangers = ["my/thesis.tex", f"zz/{digest}", "ab/notes.txt", f"ab/{digest}.bak", f"ab/cd{digest[2:]}"]
    half, whole = folder / "ab" / ".praisonweb-x", folder / "ab" / digest
    for path in (*(folder / name for name in strangers), half, whole):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"content")
    (folder / "cd").write_bytes(b"no folder")
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 7_200, time.time() - 7_200))
    assert attachments.sweep() == 2
    assert not half.exists()
    assert not whole.exists()
    assert all((folder / name).exists() for name in strangers)


def test_nothing_is_kept_of_who_is_gone():
    digest = attachments.put(b"a picture")
    attachments.keep(account="shop", contact_id=4_711, reference="f1", digest=digest, size_bytes=9, now=NOW)
    assert not KeptFile.objects.exists()


def test_housekeeping_removes_them(folder, django_capture_on_commit_callbacks):
    sent(b"old")
    with django_capture_on_commit_callbacks(execute=True):
        assert tasks.keep_house()["files_removed"] == 1
    assert stored(folder) == []


def test_housekeeping_needs_no_folder(folder):
    assert tasks.keep_house()["files_removed"] == 0
    assert not folder.exists()
