"""What is said about each provider: the hints, and the page that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outhaul.cdc_reader.operate.doctor import postgres_settings
from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.postgres.provider import PROVIDERS, SELF_RUN, Provider
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.settings import Settings

ROOT = Path(__file__).parents[2]
ALL = pytest.mark.parametrize("provider", PROVIDERS, ids=[one.name.split()[-1] for one in PROVIDERS])


@ALL
def test_each_provider_has_a_page_with_its_switch_its_grant_and_its_sources(provider: Provider) -> None:
    page = (ROOT / provider.page).read_text()
    index = (ROOT / "docs/managed/README.md").read_text()
    for shown in filter(None, (provider.role, provider.setting)):
        assert f"`{shown}`" in index
    assert f"]({Path(provider.page).name})" in index
    assert re.search(r"GRANT rds_replication|REPLICATION|neon_superuser", page)
    assert "wal_level" in page
    _, _, sources = page.partition("## Sources")
    assert "https://" in sources
    assert "**Run:**" in sources
    assert "**Not run:**" in sources


@ALL
def test_no_hint_for_a_provider_is_one_that_its_servers_refuse(provider: Provider) -> None:
    hints = (provider.make_logical(), provider.grant("Reader"), provider.change("wal_sender_timeout", "60s"))
    assert not any("ALTER SYSTEM" in hint or "pg_hba" in hint for hint in (*hints, provider.connection))
    assert provider.page in provider.grant("Reader")


def test_a_server_of_your_own_is_changed_by_statements() -> None:
    assert SELF_RUN.grant("Reader") == 'ALTER ROLE "Reader" REPLICATION'
    assert SELF_RUN.change("max_wal_senders", "20", restart=True) == (
        "ALTER SYSTEM SET max_wal_senders = 20, then restart Postgres"
    )
    assert SELF_RUN.change("wal_sender_timeout", "60s") == (
        "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();"
    )


def test_a_refused_connection_is_explained_by_its_kind() -> None:
    neon = PROVIDERS[-1]
    login = FatalError("refused", todo="look", exit_code=Exit.POSTGRES_LOGIN)
    assert "-pooler" in neon.explain(login, "reader").todo
    assert "pg_hba.conf" in SELF_RUN.explain(login, "reader").todo
    other = FatalError("odd", todo="look", exit_code=Exit.SETTINGS)
    assert neon.explain(other, "reader") is other


def test_a_limit_that_nobody_can_set_is_replaced_by_one_of_the_reader() -> None:
    azure = next(one for one in PROVIDERS if one.fixed)
    found = postgres_settings.slot_keep(-1, azure)
    assert (found.state, found.fix.startswith("OUTHAUL_PARK_WAL_BYTES=50GB")) == (State.WARN, True)


def test_slots_that_a_provider_drops_are_a_reason_to_let_the_reader_heal() -> None:
    neon = PROVIDERS[-1]
    for heal, state in (("off", State.WARN), ("auto", State.PASS)):
        findings = {one.check: one.state for one in postgres_settings.managed(neon, Settings(heal=heal))}
        assert findings == {"provider": State.PASS, "idle slots": state}
    assert not list(postgres_settings.managed(SELF_RUN, Settings()))
