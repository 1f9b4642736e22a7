import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('botsrt', '0010_run_control'),
    ]

    operations = [
        migrations.AddField(
            model_name='outboxmessage',
            name='edits',
            field=models.CharField(blank=True, default='', max_length=200),
        ),
        migrations.CreateModel(
            name='Preview',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('account', models.CharField(max_length=63)),
                ('channel_id', models.CharField(max_length=200)),
                ('thread_id', models.CharField(blank=True, default='', max_length=200)),
                ('reply_to', models.CharField(blank=True, default='', max_length=200)),
                ('platform_message_id', models.CharField(blank=True, default='', max_length=200)),
                ('is_leaving', models.BooleanField(default=False)),
                ('next_attempt_at', models.DateTimeField()),
                ('created_at', models.DateTimeField()),
                ('entry', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='previews', to='botsrt.journalentry')),
                ('turn', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='previews', to='botsrt.turn')),
            ],
        ),
    ]
