"""All three servers behind TLS: what is right goes all the way, what is wrong is refused in one line, once."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from outhaul.cdc_reader.operate.setup import apply_clickhouse, apply_postgres
from outhaul.cdc_reader.postgres.query import connect
from outhaul.cdc_reader.postgres.slot import open_link
from outhaul.cdc_reader.reader import check
from outhaul.deploy.demo.pipeline import Pipeline
from outhaul.sink.app import make_app
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.settings import Settings, load, load_from
from tests import launch
from tests.acceptance.metrics_pages import free_port
from tests.conftest import World, until
from tests.debian_postgres import postgres_15
from tests.tls import HOST, Door, Pair, Papers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PASSWORD = "ein-langes-Wort"

# What a Redis that others use gives to this pipeline: its own keys, with Celery's among them.
ACL = "~outhaul:* &* +@all -@admin -@dangerous +info"

POSTGRES, REDIS, CLICKHOUSE = "postgres_dsn", "redis_url", "clickhouse_url"


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@dataclass
class TlsPostgres:
    """A server that takes TLS alone over TCP: `reader` by password, `by_certificate` by that."""

    socket: Path
    port: int

    @property
    def owner(self) -> str:
        return f"host={self.socket} port={self.port} user=outhaul dbname=postgres"

    def present(self, name: str) -> None:
        """Present another certificate to new connections."""
        with psycopg.connect(self.owner, autocommit=True) as conn:
            conn.execute(f"ALTER SYSTEM SET ssl_cert_file = '{name}.crt'")
            conn.execute(f"ALTER SYSTEM SET ssl_key_file = '{name}.key'")
            conn.execute("SELECT pg_reload_conf()")
        until(lambda: self._shown() == f"{name}.crt", what="the certificate is changed")

    def _shown(self) -> str:
        with psycopg.connect(self.owner) as conn:
            row = conn.execute("SHOW ssl_cert_file").fetchone()
        return row[0] if row else ""


@pytest.fixture(scope="module")
def tls_postgres(papers: Papers) -> Iterator[TlsPostgres]:
    hba = f"hostssl all by_certificate {HOST}/32 cert\nhostssl all all {HOST}/32 scram-sha-256\n"
    port = free_port()
    files = {"ca.crt": papers.ca}
    for name in ("server", "expired", "elsewhere"):
        pair: Pair = getattr(papers, name)
        files |= {f"{name}.crt": pair.certificate, f"{name}.key": pair.key}
    settings = {"ssl": "on", "ssl_ca_file": "ca.crt", "listen_addresses": HOST, "port": str(port)}
    with postgres_15(hba, files, **settings) as folder:
        server = TlsPostgres(folder, port)
        apply_postgres(load(postgres_dsn=server.owner), lambda _: None)
        with psycopg.connect(server.owner) as conn:
            conn.execute(f"CREATE ROLE reader LOGIN REPLICATION PASSWORD '{PASSWORD}' IN ROLE outhaul_reader")
            conn.execute("CREATE ROLE by_certificate LOGIN REPLICATION IN ROLE outhaul_reader")
        yield server


@dataclass
class Tls:
    """A pipeline on servers behind TLS; `certificate` is what the server shows."""

    world: World
    papers: Papers
    postgres: TlsPostgres
    doors: ExitStack
    logs: Path

    def url(self, server: str, *, ca: Path | None = None, certificate: str = "server") -> str:
        """Return a URL for one of the servers, over TLS."""
        authority = ca or self.papers.ca
        if server == POSTGRES:
            self.postgres.present(certificate)
            options = f"sslmode=verify-full&sslrootcert={authority}&require_auth=scram-sha-256"
            return f"postgresql://reader:{PASSWORD}@{HOST}:{self.postgres.port}/postgres?{options}"
        plain = urlsplit(self.world.env[f"OUTHAUL_{server.upper()}"])
        shown: Pair = getattr(self.papers, certificate)
        door = Door((HOST, plain.port or 0), shown, asks=self.papers.ca if server == CLICKHOUSE else None)
        port = self.doors.enter_context(door.open()).port
        if server == REDIS:
            return f"rediss://tls:{PASSWORD}@{HOST}:{port}{plain.path}?ssl_ca_certs={authority}"
        pair = self.papers.client
        options = f"ca_cert={authority}&client_cert={pair.certificate}&client_cert_key={pair.key}"
        return f"https://{plain.username}:{plain.password}@{HOST}:{port}{plain.path}?{options}"

    def settings(self, **changes: str) -> Settings:
        return load_from(self.world.env, **changes)


@pytest.fixture
def tls(make_world: Callable[..., World], papers: Papers, tls_postgres: TlsPostgres, tmp_path: Path) -> Iterator[Tls]:
    world = make_world()
    with ExitStack() as doors, redis.Redis.from_url(world.env["OUTHAUL_REDIS_URL"]) as admin:
        admin.execute_command("ACL", "SETUSER", "tls", "on", f">{PASSWORD}", *ACL.split())
        yield Tls(world, papers, tls_postgres, doors, tmp_path)
        admin.execute_command("ACL", "DELUSER", "tls")


def test_events_go_all_the_way_over_verified_connections(tls: Tls) -> None:
    urls = {name: tls.url(name) for name in (POSTGRES, REDIS, CLICKHOUSE)}
    env = tls.world.env | {f"OUTHAUL_{name.upper()}": url for name, url in urls.items()}
    settings = tls.settings(**urls)
    apply_clickhouse(tls.world.clickhouse, settings, lambda _: None)
    apply_postgres(tls.settings(postgres_dsn=tls.postgres.owner), lambda _: None)
    pipeline = Pipeline(env, tls.logs)
    pipeline.start("worker", "reader")
    try:
        until(lambda: (state := tls.world.reader_state()) and state.phase == "streaming", what="reader streams")
        with psycopg.connect(tls.postgres.owner, autocommit=True) as conn:
            conn.execute(
                "INSERT INTO outbox (event_type, environment, event_context) "
                "SELECT 't', 'x', '{}' FROM generate_series(1, 50)"
            )
            until(lambda: tls.world.stored() == 50, what="50 events stored")
            sessions = conn.execute(
                "SELECT bool_and(ssl), count(*) FILTER (WHERE backend_type = 'walsender') FROM pg_stat_ssl "
                "JOIN pg_stat_activity USING (pid) WHERE usename = 'reader'"
            ).fetchone()
            assert sessions == (True, 1)
        # This does not heal by itself: a process that has to connect again prints the error and exits.
        tls.postgres.present("expired")
        with psycopg.connect(tls.postgres.owner, autocommit=True) as conn:
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        assert pipeline.wait("reader", 30) == 1
        assert "Renew the certificate" in pipeline.log("reader").splitlines()[-1]
    finally:
        pipeline.kill()
        with psycopg.connect(tls.postgres.owner, autocommit=True) as conn:
            conn.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL"
            )
    said = pipeline.log("reader") + pipeline.log("worker")
    assert PASSWORD not in said
    assert "insecure" not in said


def test_a_client_certificate_is_a_login_of_postgres_for_both_kinds_of_connection(tls: Tls) -> None:
    tls.postgres.present("server")
    pair, port = tls.papers.by_certificate, tls.postgres.port
    dsn = (
        f"postgresql://by_certificate@{HOST}:{port}/postgres?sslmode=verify-full&sslrootcert={tls.papers.ca}"
        f"&sslcert={pair.certificate}&sslkey={pair.key}"
    )
    with connect(dsn) as conn:
        row = conn.fetch_one("SELECT ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    assert row == {"ssl": True, "client_dn": row and row["client_dn"]}
    open_link(dsn, "outhaul", "outhaul").close()


@pytest.mark.parametrize("server", [POSTGRES, REDIS, CLICKHOUSE])
def test_a_server_of_another_ca_is_refused_in_one_line_and_not_asked_again(tls: Tls, server: str) -> None:
    url = tls.url(server, ca=tls.papers.wrong_ca)
    env = tls.world.env | {f"OUTHAUL_{server.upper()}": url}
    done = launch.run("reader", env=env, cwd=tls.logs)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "certificate" in line
    assert f"name the CA that signed it: OUTHAUL_{server.upper()}=" in line
    assert PASSWORD not in line


@pytest.mark.parametrize("server", [POSTGRES, REDIS, CLICKHOUSE])
@pytest.mark.parametrize(("certificate", "word"), [("expired", "expired"), ("elsewhere", "match")])
def test_a_certificate_that_has_expired_or_is_for_another_host_is_refused(
    tls: Tls, server: str, certificate: str, word: str
) -> None:
    # libpq reports for both that the certificate is not valid, but not always why.
    words = "certificate verify failed|does not match" if server == POSTGRES else word
    with pytest.raises(FatalError, match=words) as caught:
        check(tls.settings(**{server: tls.url(server, certificate=certificate)}).undivided)
    assert caught.value.exit_code == Exit.NOT_FINE
    assert "Renew the certificate" in caught.value.todo


def test_the_broker_verifies_as_well(tls: Tls) -> None:
    with make_app(tls.settings(redis_url=tls.url(REDIS))).connection_for_write() as right:
        right.ensure_connection(max_retries=1, interval_start=0)
        assert right.connected
    for ca, certificate in ((tls.papers.wrong_ca, "server"), (tls.papers.ca, "elsewhere")):
        url = tls.url(REDIS, ca=ca, certificate=certificate)
        with (
            make_app(tls.settings(redis_url=url)).connection_for_write() as wrong,
            pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            wrong.ensure_connection(max_retries=1, interval_start=0)


def test_a_key_that_is_not_there_is_named(tls: Tls) -> None:
    url = tls.url(CLICKHOUSE)
    with pytest.raises(FatalError, match="client_cert_key=/nowhere cannot be read"):
        check(tls.settings(clickhouse_url=f"{url.rpartition('=')[0]}=/nowhere").undivided)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({REDIS: "rediss://127.0.0.1:1/0?ssl_cert_reqs=none"}, "would turn off the verification of the server"),
        ({REDIS: "rediss://127.0.0.1:1/0?ssl_check_hostname=false"}, "would turn off the verification of the server"),
        ({REDIS: "rediss://127.0.0.1:1/0?ssl_magic=1"}, "unknown option: ssl_magic"),
        ({REDIS: "rediss://127.0.0.1:1/0?ssl_ca_certs=/nowhere"}, "ssl_ca_certs=/nowhere cannot be read"),
        ({REDIS: "redis://127.0.0.1:1/0?ssl_ca_certs=/nowhere"}, "Write rediss://"),
        ({CLICKHOUSE: "http://127.0.0.1:1/x?ca_cert=/nowhere"}, "write https://"),
        ({CLICKHOUSE: "https://127.0.0.1:1/x?verify=false"}, "unknown option: verify"),
    ],
)
def test_options_that_would_verify_less_are_refused(changes: dict[str, str], words: str) -> None:
    ((server, url),) = changes.items()
    with pytest.raises(FatalError, match=words) as caught:
        _ = Payloads(url, "outhaul") if server == REDIS else ClickHouse(url, timeout_s=1)
    assert caught.value.exit_code == Exit.SETTINGS
