"""Contacts: who writes, on which platform."""

from __future__ import annotations

from datetime import datetime, timedelta

from botsrt.core.messages import Sender
from botsrt.models import Contact

#: ``last_seen_at`` moves at most this often, so that a busy contact does not cost a write per message.
SEEN_RESOLUTION = timedelta(minutes=1)


def contact_seen(*, platform: str, sender: Sender, now: datetime) -> Contact:
    """The contact of ``sender``, made on first sight. Writing to us proves that they can be reached again."""
    contact, is_new = Contact.objects.get_or_create(
        platform=platform,
        platform_user_id=sender.user_id,
        defaults={
            "user_name": sender.user_name,
            "display_name": sender.display_name,
            "first_seen_at": now,
            "last_seen_at": now,
        },
    )
    if is_new:
        return contact
    # A platform that leaves names out of an event has not taken them away.
    names = (sender.user_name or contact.user_name, sender.display_name or contact.display_name)
    names_changed = names != (contact.user_name, contact.display_name)
    if names_changed or not contact.is_reachable or now - contact.last_seen_at > SEEN_RESOLUTION:
        contact.user_name, contact.display_name = names
        contact.is_reachable, contact.last_seen_at = True, now
        contact.save(update_fields=["user_name", "display_name", "is_reachable", "last_seen_at"])
    return contact
