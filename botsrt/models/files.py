"""Files of messages of which a copy is kept."""

from __future__ import annotations

from django.db import models

from botsrt.models.fields import account_field
from botsrt.models.identity import Contact

#: Characters of a SHA-256 digest in hexadecimal.
_DIGEST_CHARS = 64


class KeptFile(models.Model):
    """One file that a contact sent to a bot. Its content lies in the folder of files under its digest, once for all."""

    account = account_field()
    contact = models.ForeignKey(Contact, on_delete=models.CASCADE, null=True, related_name="kept_files", db_index=False)
    reference = models.CharField(max_length=_DIGEST_CHARS)  # of core.messages.Attachment, as a digest: it may be long
    digest = models.CharField(max_length=_DIGEST_CHARS)
    size_bytes = models.PositiveBigIntegerField()
    kept_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["contact", "account", "reference"], name="kept_file_reference"),
        ]
        indexes = [
            models.Index(fields=["account", "reference"], name="kept_file_account"),
            models.Index(fields=["digest"], name="kept_file_digest"),
            models.Index(fields=["kept_at"], name="kept_file_age"),
        ]

    def __str__(self) -> str:
        return f"{self.account} {self.digest[:12]}"
