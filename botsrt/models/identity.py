"""The people who write: as the platforms know them, and as the humans they are."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from botsrt.core.states import Proof
from botsrt.models.fields import actor_field, id_field, name_field, platform_field, state_field


class Contact(models.Model):
    """One human's identity on one platform. Names are shown, never compared."""

    platform = platform_field()
    platform_user_id = id_field()
    user_name = name_field()
    display_name = name_field()
    # The contact that this one is another id of; its lane and its access are that one's. Never more than one step.
    alias_of = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="aliases")
    is_blocked = models.BooleanField(default=False)
    is_reachable = models.BooleanField(default=True)  # False: the platform said that messages cannot be delivered
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["platform", "platform_user_id"], name="contact_identity"),
        ]

    def __str__(self) -> str:
        return f"{self.platform}:{self.platform_user_id}"

    @property
    def root_id(self) -> int:
        """The contact that access and links are about."""
        return self.alias_of_id or self.pk


class Person(models.Model):
    """The human behind one or more contacts, by an id that staff or a program chose."""

    unified_user_id = id_field(unique=True)
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.unified_user_id


class PersonMerge(models.Model):
    """Two persons turned out to be one. The links that it made say so, and know which links they replaced."""

    winner = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="merges_won")
    loser = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="merges_lost")
    merged_by = actor_field()
    merged_at = models.DateTimeField()
    reason = models.TextField()
    undone_by = actor_field(blank=True, default="")
    undone_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["loser"], condition=Q(undone_at=None), name="merge_one_per_loser"),
        ]

    def __str__(self) -> str:
        return f"{self.loser} into {self.winner}"


class IdentityLink(models.Model):
    """A dated, proven statement that a contact is a person. Ended, never overwritten."""

    contact = models.ForeignKey(Contact, on_delete=models.PROTECT, related_name="links")
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="links")
    proof = state_field(Proof)
    linked_by = actor_field()
    linked_at = models.DateTimeField()
    reason = models.TextField(blank=True, default="")
    unlinked_by = actor_field(blank=True, default="")
    unlinked_at = models.DateTimeField(null=True)
    unlink_reason = models.TextField(blank=True, default="")
    # What /new moved: while the link lasts, history rows of the contact up to this id are not shown to the agent.
    context_start = models.BigIntegerField(default=0)
    merge = models.ForeignKey(PersonMerge, on_delete=models.PROTECT, null=True, related_name="links")
    replaces = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="+")  # by a merge

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["contact"], condition=Q(unlinked_at=None), name="link_one_per_contact"),
        ]
        indexes = [models.Index(fields=["person"], condition=Q(unlinked_at=None), name="link_person")]

    def __str__(self) -> str:
        return f"{self.contact_id} is {self.person_id}"
