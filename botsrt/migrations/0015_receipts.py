from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('botsrt', '0014_keeping'),
    ]

    operations = [
        migrations.AddField(
            model_name='outboxmessage',
            name='delivered_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='outboxmessage',
            name='read_at',
            field=models.DateTimeField(null=True),
        ),
    ]
