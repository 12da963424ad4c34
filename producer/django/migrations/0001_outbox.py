"""The files of `sql/postgres` -> table, publication, roles and functions in Postgres, and one model in Django's state.

Edge: `manage.py migrate` applies it.
"""

import django.db.models.functions.datetime
from django.db import migrations, models

from outhaul.django import ddl
from outhaul.django.conf import db_table
from outhaul.django.models import ContextEncoder


class Migration(migrations.Migration):
    """Create the outbox, or use the existing one."""

    initial = True
    dependencies = ()
    operations = (
        migrations.SeparateDatabaseAndState(
            database_operations=ddl.outbox(),
            state_operations=[
                migrations.CreateModel(
                    name="OutboxEvent",
                    fields=[
                        (
                            "id",
                            models.BigAutoField(
                                primary_key=True, auto_created=True, serialize=False, verbose_name="ID"
                            ),
                        ),
                        ("event_type", models.CharField(max_length=255)),
                        (
                            "event_date_time",
                            models.DateTimeField(
                                blank=True, null=True, db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("environment", models.CharField(max_length=255)),
                        ("event_context", models.JSONField(encoder=ContextEncoder)),
                        ("metadata_version", models.BigIntegerField(blank=True, null=True, db_default=1)),
                        ("event_key", models.TextField(blank=True, null=True, unique=True)),
                    ],
                    options={"verbose_name": "event", "db_table": db_table(), "ordering": ("-id",)},
                )
            ],
        ),
    )
