"""All tables. One file per aggregate; only ``botsrt.services`` writes them."""

from botsrt.models.alerts import Alert, AlertNotice, HourCount, Tally
from botsrt.models.audit import AuditEvent
from botsrt.models.bots import AdapterState, AgentProfile, Bot
from botsrt.models.bulk import BulkItem, BulkOperation
from botsrt.models.dlq import DLQItem
from botsrt.models.files import KeptFile
from botsrt.models.identity import Contact, IdentityLink, Person, PersonMerge
from botsrt.models.journal import JournalEntry
from botsrt.models.outbox import OutboxMessage
from botsrt.models.pairing import Pairing, WrongCodes
from botsrt.models.previews import Preview
from botsrt.models.sessions import BotSession, HistoryMessage, Recollection
from botsrt.models.turns import Turn
from botsrt.models.workers import Worker

__all__ = [
    "AdapterState",
    "AgentProfile",
    "Alert",
    "AlertNotice",
    "AuditEvent",
    "Bot",
    "BotSession",
    "BulkItem",
    "BulkOperation",
    "Contact",
    "DLQItem",
    "HistoryMessage",
    "HourCount",
    "IdentityLink",
    "JournalEntry",
    "KeptFile",
    "OutboxMessage",
    "Pairing",
    "Person",
    "PersonMerge",
    "Preview",
    "Recollection",
    "Tally",
    "Turn",
    "Worker",
    "WrongCodes",
]
