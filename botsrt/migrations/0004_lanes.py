from django.db import migrations, models


def each_session_is_its_own_lane(apps, schema_editor):
    """Nobody is linked yet."""
    apps.get_model("botsrt", "BotSession").objects.update(lane=models.F("session_id"))


class Migration(migrations.Migration):

    dependencies = [
        ('botsrt', '0003_pairing_and_identity'),
    ]

    operations = [
        migrations.RunPython(each_session_is_its_own_lane, migrations.RunPython.noop),
        migrations.AlterField(
            model_name='botsession',
            name='lane',
            field=models.CharField(max_length=600),
        ),
    ]
