"""``manage.py identity``: which contacts are one human."""

from __future__ import annotations

import os
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from botsrt import tasks
from botsrt.core.errors import NotFound
from botsrt.core.states import BulkItemState, BulkState, BulkVerb, Proof
from botsrt.core.text import one_line
from botsrt.management import cli
from botsrt.models import BulkOperation, Contact, IdentityLink, Person, PersonMerge
from botsrt.services import dossier, erasing, identity, persons, resolvers


class Command(cli.VerbCommand):
    help = "See who is who; link contacts to persons, and take links back."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        add("list", "Persons with their contacts.", prints_data=True)
        verb = add("show", "One person: contacts, and what was linked when, by whom and why.", prints_data=True)
        verb.add_argument("unified_id")
        verb = add(
            "link", "Say that a contact is a person; nothing but your reason stands behind it.", prints_data=True
        )
        _add_contact(verb)
        verb.add_argument("unified_id", help="the person, such as alice; made on first mention")
        verb.add_argument("--reason", default="", help="how you know; needed unless --preview")
        verb.add_argument("--preview", action="store_true", help="change nothing; say whose messages would be joined")
        verb = add("unlink", "End a contact's link; both sides read as if it had never been.", prints_data=True)
        _add_contact(verb)
        verb.add_argument("--reason", default="")
        verb = add("merge", "Say that two persons are one.", prints_data=True)
        verb.add_argument("loser", help="whose contacts go over")
        verb.add_argument("winner", help="to whom")
        verb.add_argument("--reason", required=True)
        verb = add("unmerge", "Undo a merge.", prints_data=True)
        verb.add_argument("id", type=cli.row_id, help="of the merge")
        verb.add_argument("--reason", default="")
        verb = add("alias", "Say that a platform gave a contact another user id.", prints_data=True)
        _add_contact(verb)
        verb.add_argument("same_as", metavar="OLD_USER_ID", help="the user id that the contact had before")
        verb.add_argument("--reason", required=True)
        verb = add("unalias", "Take an alias back.", prints_data=True)
        _add_contact(verb)
        verb.add_argument("--reason", default="")
        verb = add(
            "import", "Make the links of a JSON file (identity.json), as far as they are missing.", prints_data=True
        )
        verb.add_argument("file", help="- reads standard input")
        verb.add_argument("--reason", default="import")
        add("export", "Write all links into a JSON file.", prints_data=True).add_argument(
            "file", help="- writes standard output"
        )

        verb = add("data", "Write everything that is held about somebody into a JSON file.")
        verb.add_argument("who", help="platform:user_id with its aliases, or a person with all contacts")
        verb.add_argument("file", help="- writes standard output")
        verb.add_argument("--reason", default="")
        verb = add("erase", "Say what is held about somebody; with --confirm, erase it for good.", prints_data=True)
        verb.add_argument("who", help="platform:user_id with its aliases, or a person with all contacts")
        verb.add_argument("--confirm", metavar="WHO", help="the same again: erase it")
        verb.add_argument("--reason", default="", help="kept in the audit; do not name the person")
        verb.add_argument(
            "--vacuum", action="store_true", help="write the database anew afterwards; on SQLite all writers wait"
        )

    def do_list(self, options: dict[str, Any]) -> None:
        found: dict[str, list[str]] = {}
        for (platform, user_id), unified in sorted(identity.all_links().items()):
            found.setdefault(unified, []).append(f"{platform}:{user_id}")
        rows = [
            {"person": one_line(unified), "contacts": contacts if options["json"] else one_line(", ".join(contacts))}
            for unified, contacts in sorted(found.items())
        ]
        self.table(options, rows, empty="Nobody is linked.", whole=("person",))

    def do_show(self, options: dict[str, Any]) -> None:
        unified = options["unified_id"]
        linked = sorted(f"{p}:{u}" for (p, u), known in identity.all_links().items() if known == unified)
        person = Person.objects.filter(unified_user_id=unified).first()
        if person is None and not linked:
            raise NotFound(f"There is no person {unified}; see: identity list")
        links = IdentityLink.objects.filter(person=person).select_related("contact").order_by("id")
        merges = PersonMerge.objects.filter(loser=person) | PersonMerge.objects.filter(winner=person)
        self.show(
            options,
            {
                "person": unified,
                "contacts": linked,
                "links": [_link(link) for link in links] if person else [],
                "merges": [_merge(merge) for merge in merges.order_by("id")] if person else [],
            },
        )

    def do_link(self, options: dict[str, Any]) -> None:
        contact = {"platform": options["platform"], "user_id": options["user_id"]}
        if options["preview"]:
            self._show_preview(options, identity.preview(**contact, unified_user_id=options["unified_id"]))
            return
        identity.link(
            **contact,
            unified_user_id=options["unified_id"],
            proof=Proof.STAFF,
            actor=cli.actor(),
            reason=options["reason"],
            now=timezone.now(),
        )
        self._tell(options, f"{_name(options)} is {options['unified_id']} now.", person=options["unified_id"])

    def _show_preview(self, options: dict[str, Any], preview: identity.Preview) -> None:
        sides = {"contact": preview.contact, "person": preview.person}
        self.show(
            options,
            {
                f"{side}_{name}": getattr(told, name)
                for side, told in sides.items()
                for name in ("contacts", "messages", "first_at", "last_at")
            },
        )
        if not options["json"]:
            self.say(
                f"An agent that answers {_name(options)} would also see {preview.person.messages} messages of "
                f"{options['unified_id']}, and the other way round {preview.contact.messages}. Nothing was changed."
            )

    def do_unlink(self, options: dict[str, Any]) -> None:
        unified = identity.unlink(
            platform=options["platform"],
            user_id=options["user_id"],
            actor=cli.actor(),
            reason=options["reason"],
            now=timezone.now(),
        )
        self._tell(options, f"{_name(options)} is not {one_line(unified)} any more.", person=unified)

    def do_merge(self, options: dict[str, Any]) -> None:
        merge_id = persons.merge(
            loser=options["loser"],
            winner=options["winner"],
            actor=cli.actor(),
            reason=options["reason"],
            now=timezone.now(),
        )
        self._tell(
            options,
            f"{options['loser']} is {options['winner']} now. To undo it: identity unmerge {merge_id}",
            merge=merge_id,
        )

    def do_unmerge(self, options: dict[str, Any]) -> None:
        persons.undo_merge(merge_id=options["id"], actor=cli.actor(), reason=options["reason"], now=timezone.now())
        self._tell(options, f"Merge {options['id']} is undone.", merge=options["id"])

    def do_alias(self, options: dict[str, Any]) -> None:
        identity.declare_alias(
            platform=options["platform"],
            user_id=options["user_id"],
            same_as=options["same_as"],
            actor=cli.actor(),
            reason=options["reason"],
            now=timezone.now(),
        )
        self._tell(options, f"{_name(options)} is {options['platform']}:{options['same_as']} under another id.")

    def do_unalias(self, options: dict[str, Any]) -> None:
        identity.end_alias(
            platform=options["platform"],
            user_id=options["user_id"],
            actor=cli.actor(),
            reason=options["reason"],
            now=timezone.now(),
        )
        self._tell(options, f"{_name(options)} is a contact of its own again.")

    def do_import(self, options: dict[str, Any]) -> None:
        links = resolvers.read_links(_read(options["file"]))
        made, problems = identity.import_links(
            links=links, actor=cli.actor(), reason=options["reason"], now=timezone.now()
        )
        known = len(links) - made - len(problems)
        self._tell(options, f"{made} links made, {known} were there.", made=made, known=known, problems=problems)
        for problem in problems:
            self.stderr.write(cli.harmless(problem))
        if problems:
            raise CommandError(f"{len(problems)} links could not be made.")

    def do_export(self, options: dict[str, Any]) -> None:
        links = identity.all_links()
        text = resolvers.write_links(links)
        if options["file"] == "-":
            self.stdout.write(text)
            return
        _write(Path(options["file"]), text)
        self._tell(options, f"{len(links)} links written.", links=len(links))

    def _tell(self, options: dict[str, Any], text: str, **data: Any) -> None:
        if options["json"]:
            self.print_json({"contact": _name(options), **data} if "platform" in options else data)
        else:
            self.say(text)

    def do_data(self, options: dict[str, Any]) -> None:
        contact_ids = erasing.contacts_of(options["who"])
        pieces = dossier.export(
            contact_ids=contact_ids, actor=cli.actor(), reason=options["reason"], now=timezone.now()
        )
        if options["file"] == "-":
            for piece in pieces:
                self.stdout.write(piece, ending="")
            return
        _write(Path(options["file"]), "".join(pieces))
        self.say(f"Written: {options['file']}")

    def do_erase(self, options: dict[str, Any]) -> None:
        contact_ids = erasing.contacts_of(options["who"])
        held = erasing.preview(contact_ids=contact_ids)
        if options["confirm"] is None:
            self.show(options, {"contacts": held.contacts, "persons": held.persons, **held.counts(), "bots": held.bots})
            if not options["json"]:
                self.say(f"Nothing was changed. To erase it for good: --confirm {one_line(options['who'])}")
            return
        if options["confirm"] != options["who"]:
            raise CommandError("--confirm: write exactly whom you named; nothing was erased.")
        operation_id = tasks.begin_bulk(
            verb=BulkVerb.ERASE, object_ids=contact_ids, actor=cli.actor(), reason=options["reason"]
        )
        tasks.finish_bulk(operation_id)
        _check_erased(operation_id)
        if options["vacuum"]:
            tasks.rewrite_database()
        self.show(options, {"operation": operation_id, "erased": held.counts(), "bots": held.bots})
        if held.bots and not options["json"]:
            self.say("The settings of these bots name them; change them with: bots edit")


def _add_contact(verb: ArgumentParser) -> None:
    verb.add_argument("platform")
    verb.add_argument("user_id", help="as the platform names them")


def _name(options: dict[str, Any]) -> str:
    return one_line(f"{options['platform']}:{options['user_id']}")


def _check_erased(operation_id: int) -> None:
    """Raises:
    CommandError: contacts are left; it says which, why, and what to do.
    """
    operation = BulkOperation.objects.get(pk=operation_id)
    details = dict(operation.items.exclude(state=BulkItemState.DONE).values_list("object_id", "detail"))
    left = list(Contact.objects.filter(pk__in=details).order_by("pk"))
    if operation.state == BulkState.STOPPED:
        why = f" by {operation.stopped_by}" if operation.stopped_by else ""
        raise CommandError(
            f"Operation {operation_id} was stopped{why}; not erased, or not wholly: "
            f"{one_line(', '.join(map(str, left)), max_chars=500)}. To go on: bulk resume {operation_id}"
        )
    if left:  # those that were gone already are no trouble
        lines = [f"{one_line(str(contact))}: {one_line(details[contact.pk])}" for contact in left]
        raise CommandError(
            "Not erased, or not wholly:\n" + "\n".join(lines) + "\nErase each again, by the name that stands here."
        )


def _link(link: IdentityLink) -> dict[str, Any]:
    return {
        "contact": str(link.contact),
        "proof": link.proof,
        "linked": link.linked_at,
        "linked_by": link.linked_by,
        "reason": link.reason,
        "ended": link.unlinked_at,
        "ended_by": link.unlinked_by,
        "end_reason": link.unlink_reason,
    }


def _merge(merge: PersonMerge) -> dict[str, Any]:
    return {
        "id": merge.pk,
        "loser": str(merge.loser),
        "winner": str(merge.winner),
        "merged": merge.merged_at,
        "merged_by": merge.merged_by,
        "undone": merge.undone_at,
    }


def _read(name: str) -> str:
    """The text of the file, or of standard input.

    Raises:
        CommandError: it cannot be read.
    """
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).expanduser().read_bytes()
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{name}: {error}") from error


def _write(path: Path, text: str) -> None:
    """The whole file or nothing, readable by its owner alone.

    Raises:
        CommandError: it cannot be written.
    """
    target = path.expanduser()
    try:
        with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False, encoding="utf-8") as file:  # mode 0600
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, target)
    except OSError as error:
        raise CommandError(f"{path}: {error}") from error
