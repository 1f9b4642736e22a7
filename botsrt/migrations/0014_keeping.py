from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('botsrt', '0013_health'),
    ]

    operations = [
        migrations.AlterField(
            model_name='bulkoperation',
            name='verb',
            field=models.CharField(choices=[('retry', 'retry'), ('discard', 'discard'), ('replay', 'replay'), ('arrived', 'arrived'), ('again', 'again'), ('drop', 'drop'), ('erase', 'erase')], max_length=20),
        ),
        migrations.AlterField(
            model_name='journalentry',
            name='kind',
            field=models.CharField(choices=[('message', 'message'), ('edit', 'edit'), ('callback', 'callback'), ('unreadable', 'unreadable'), ('erased', 'erased')], max_length=20),
        ),
    ]
