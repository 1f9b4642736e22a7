"""All tables. One file per aggregate; only ``botsrt.services`` writes them."""

from botsrt.models.audit import AuditEvent
from botsrt.models.bots import AdapterState, AgentProfile, Bot
from botsrt.models.bulk import BulkItem, BulkOperation
from botsrt.models.dlq import DLQItem
from botsrt.models.identity import Contact, IdentityLink, Person, PersonMerge
from botsrt.models.journal import JournalEntry
from botsrt.models.outbox import OutboxMessage
from botsrt.models.pairing import Pairing, WrongCodes
from botsrt.models.previews import Preview
from botsrt.models.sessions import BotSession, HistoryMessage
from botsrt.models.turns import Turn
from botsrt.models.workers import Worker

__all__ = [
    "AdapterState",
    "AgentProfile",
    "AuditEvent",
    "Bot",
    "BotSession",
    "BulkItem",
    "BulkOperation",
    "Contact",
    "DLQItem",
    "HistoryMessage",
    "IdentityLink",
    "JournalEntry",
    "OutboxMessage",
    "Pairing",
    "Person",
    "PersonMerge",
    "Preview",
    "Turn",
    "Worker",
    "WrongCodes",
]
