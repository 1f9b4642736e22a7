"""What the task cluster (django-q2) runs. Tasks write rows; they never call a platform."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from botsrt import conf
from botsrt.services import housekeeping

#: How often housekeeping runs, in minutes.
HOUSEKEEPING_MINUTES = 10


def keep_house() -> dict[str, Any]:
    """Remove what is over and old; see ``services.housekeeping``. Safe to run twice at once."""
    config = conf.load()
    report = housekeeping.run(
        now=timezone.now(),
        max_size=config.max_size,
        ttl=timedelta(seconds=config.ttl_seconds),
        dlq_max_size=config.dlq_max_size,
        dlq_ttl=timedelta(seconds=config.dlq_ttl_seconds),
    )
    return {
        "entries_removed": report.entries_removed,
        "dlq_items_removed": report.dlq_items_removed,
        "is_journal_full": report.is_journal_full,
    }


def schedule(sender: Any, **kwargs: Any) -> None:
    """Write down what runs regularly. Called after every ``migrate``; repeating it changes nothing."""
    from django_q.models import Schedule

    Schedule.objects.update_or_create(
        name="housekeeping",
        defaults={
            "func": "botsrt.tasks.keep_house",
            "schedule_type": Schedule.MINUTES,
            "minutes": HOUSEKEEPING_MINUTES,
            "repeats": -1,
        },
    )
