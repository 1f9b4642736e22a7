import botsrt.core.states
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('botsrt', '0009_waiting_of_a_session'),
    ]

    operations = [
        migrations.AddField(
            model_name='journalentry',
            name='interruptions',
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='journalentry',
            name='runs_aside',
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name='turn',
            name='runs_aside',
            field=models.BooleanField(default=False),
        ),
        migrations.RemoveConstraint(
            model_name='turn',
            name='turn_one_running_per_lane',
        ),
        migrations.AddConstraint(
            model_name='turn',
            constraint=models.UniqueConstraint(condition=models.Q(('state', botsrt.core.states.TurnState['RUNNING'])), fields=('lane', 'runs_aside'), name='turn_one_running_per_lane'),
        ),
        migrations.AddIndex(
            model_name='journalentry',
            index=models.Index(condition=models.Q(('state', botsrt.core.states.EntryState['PENDING']), ('runs_aside', True)), fields=['available_at', 'id'], name='journal_aside'),
        ),
    ]
