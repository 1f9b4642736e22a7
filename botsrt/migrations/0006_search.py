from django.db import migrations

_SQLITE = [
    """CREATE VIRTUAL TABLE botsrt_history_search USING fts5(
        text, content='botsrt_historymessage', content_rowid='id', tokenize='unicode61 remove_diacritics 2')""",
    """CREATE TRIGGER botsrt_history_search_insert AFTER INSERT ON botsrt_historymessage BEGIN
        INSERT INTO botsrt_history_search(rowid, text) VALUES (new.id, new.text); END""",
    """CREATE TRIGGER botsrt_history_search_delete AFTER DELETE ON botsrt_historymessage BEGIN
        INSERT INTO botsrt_history_search(botsrt_history_search, rowid, text) VALUES ('delete', old.id, old.text); END""",
    """CREATE TRIGGER botsrt_history_search_update AFTER UPDATE OF text ON botsrt_historymessage BEGIN
        INSERT INTO botsrt_history_search(botsrt_history_search, rowid, text) VALUES ('delete', old.id, old.text);
        INSERT INTO botsrt_history_search(rowid, text) VALUES (new.id, new.text); END""",
    "INSERT INTO botsrt_history_search(botsrt_history_search) VALUES ('rebuild')",
]

_POSTGRESQL = [
    "CREATE INDEX botsrt_history_search ON botsrt_historymessage USING gin (to_tsvector('simple', text))",
]

_BACK = {
    "sqlite": [
        "DROP TRIGGER botsrt_history_search_update",
        "DROP TRIGGER botsrt_history_search_delete",
        "DROP TRIGGER botsrt_history_search_insert",
        "DROP TABLE botsrt_history_search",
    ],
    "postgresql": ["DROP INDEX botsrt_history_search"],
}


def make_index(apps, schema_editor):
    for statement in {"sqlite": _SQLITE, "postgresql": _POSTGRESQL}[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


def drop_index(apps, schema_editor):
    for statement in _BACK[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


class Migration(migrations.Migration):

    dependencies = [
        ('botsrt', '0005_handling'),
    ]

    operations = [
        migrations.RunPython(make_index, drop_index),
    ]
