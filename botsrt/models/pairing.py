"""Requests for access, and for being recognised as somebody who has it."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from botsrt.core.states import PairingPurpose, PairingState, Proof
from botsrt.models.fields import account_field, actor_field, id_field, platform_field, state_field
from botsrt.models.identity import Contact
from botsrt.models.journal import JournalEntry
from botsrt.models.sessions import BotSession


class Pairing(models.Model):
    """What a contact asked of one bot, and what staff made of it. Its code is stored nowhere: core.pairing_codes."""

    platform = platform_field()
    account = account_field()
    contact = models.ForeignKey(Contact, on_delete=models.PROTECT, related_name="pairings")
    purpose = state_field(PairingPurpose)
    state = state_field(PairingState, default=PairingState.WAITING)
    nonce = models.CharField(max_length=32)
    code_hash = models.CharField(max_length=64)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    # Where the requester is told.
    session = models.ForeignKey(BotSession, on_delete=models.PROTECT, related_name="pairings")
    channel_id = id_field()
    thread_id = id_field(blank=True, default="")

    entry = models.ForeignKey(
        JournalEntry, on_delete=models.SET_NULL, null=True, related_name="+"
    )  # what it began with
    first_words = models.CharField(max_length=200, blank=True, default="")
    asked_count = models.PositiveIntegerField(default=1)
    code_sent_at = models.DateTimeField()

    # The other contact, which gave the code of a link back.
    other = models.ForeignKey(Contact, on_delete=models.PROTECT, null=True, related_name="+")
    other_account = account_field(blank=True, default="")
    other_session = models.ForeignKey(BotSession, on_delete=models.PROTECT, null=True, related_name="+")
    other_channel_id = id_field(blank=True, default="")
    other_needs_access = models.BooleanField(default=False)
    other_at = models.DateTimeField(null=True)

    proof = state_field(Proof, blank=True, default="")
    decided_by = actor_field(blank=True, default="")
    decided_at = models.DateTimeField(null=True)
    reason = models.TextField(blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "contact"], condition=Q(state=PairingState.WAITING), name="pairing_one_waiting"
            ),
            models.UniqueConstraint(
                fields=["account", "contact"],
                condition=Q(state=PairingState.APPROVED, purpose=PairingPurpose.ACCESS),
                name="pairing_one_approved",
            ),
        ]
        indexes = [
            models.Index(fields=["expires_at"], condition=Q(state=PairingState.WAITING), name="pairing_expiry"),
            models.Index(fields=["account", "state", "id"], name="pairing_account"),
        ]

    def __str__(self) -> str:
        return f"{self.account} {self.contact_id} {self.purpose} {self.state}"


class WrongCodes(models.Model):
    """Who guesses codes: their wrong ones within the window, and until when they are locked out."""

    guesser = models.CharField(max_length=200, unique=True)  # "contact:<id>" or an actor's name
    times = models.JSONField(default=list)  # seconds since 1970, of those that still count
    last_at = models.DateTimeField()
    locked_until = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "wrong codes"

    def __str__(self) -> str:
        return f"{self.guesser} {len(self.times)}"
