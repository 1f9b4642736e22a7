"""The agent that every new bot starts with."""

from django.db import migrations
from django.utils import timezone


def add_echo(apps, schema_editor):
    now = timezone.now()
    apps.get_model("botsrt", "AgentProfile").objects.get_or_create(
        name="echo", defaults={"kind": "echo", "created_at": now, "updated_at": now}
    )


class Migration(migrations.Migration):
    dependencies = [("botsrt", "0001_initial")]
    operations = [migrations.RunPython(add_echo, migrations.RunPython.noop)]
