"""An address of Redis says which kind it is, or one line says what is wrong with it; secrets are in no line."""

from __future__ import annotations

import pytest

from outhaul.sink import redis_url
from outhaul.sink.app import configuration
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.redis import connection, topology
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.redis_url import RedisKind
from outhaul.sink.settings import load

SECRET = "hunter2-with"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sentinel://127.0.0.1:26379/0", "sentinel:// is an unknown scheme"),
        ("redis-sentinel://one/0?master=m", "redis-sentinel:// is an unknown scheme"),
        ("redis+clusters://one", r"redis\+clusters:// is an unknown scheme"),
        ("unix+cluster://one", r"unix\+cluster:// is an unknown scheme"),
        ("redis://:with,comma@one:6379,two:6379/0", "several servers, but not their kind"),
        (
            "redis+sentinel://one,two,three/0",
            "does not name the primary for which to ask the Sentinels. Add .master=NAME",
        ),
        ("redis+sentinel://one/0?master=", "does not name the primary"),
        (
            "redis+sentinel://one/0?master_name=m",
            "option for redis.sentinel://: master_name. The options are: master, ",
        ),
        ("redis+sentinel://one/0?master=m&db=1", "unknown option for redis.sentinel://: db"),
        ("redis+sentinel://one/x?master=m", "the database is not a number"),
        ("redis+sentinel://one/-1?master=m", "the database is not a number"),
        ("redis+sentinel://?master=m", "server 1 is not of the form host:port"),
        ("redis+sentinel://one,,two?master=m", "server 2 is not of the form host:port"),
        ("redis+sentinel://one:port?master=m", "server 1 is not of the form host:port"),
        ("redis+sentinel://one:0?master=m", "server 1 is not of the form host:port"),
        ("redis+sentinel://one:70000?master=m", "server 1 is not of the form host:port"),
        (f"redis+sentinel://me:{SECRET}/slash@one?master=m", "server 1 is not of the form host:port"),
        ("redis+sentinel://[one?master=m", "OUTHAUL_REDIS_URL: "),
        ("redis+sentinel://one?master=m&ssl_ca_certs=/ca", r"Write rediss\+sentinel://"),
        ("rediss+sentinel://one?master=m&ssl_ca_certs=/nowhere", "ssl_ca_certs=/nowhere cannot be read"),
        ("rediss+cluster://one?ssl_cert_reqs=none", "would turn off the verification of the server"),
        ("redis+cluster://one/3", "database 3, but a cluster has database 0 only"),
        ("redis+cluster://one?master=m", r"option for redis\+cluster://: master. The options are: none; with TLS"),
        ("redis+cluster://one,:6379", "server 2 is not of the form host:port"),
        ("http://one", "it is not a URL of Redis"),
        ("redis://one/shop", "the database is not a number. Write /0"),
        ("redis://one?db=shop", "an option has a wrong value"),
        ("redis://one?db=-1", "a number is below 0"),
        ("redis://one/-1", "the database is not a number"),
        ("redis://one?socket_timeout=0.1", "socket_timeout=0.1 does not work. Write 2 to 10 seconds"),
        ("redis://one?socket_connect_timeout=60", "socket_connect_timeout=60 does not work"),
        ("redis://one?socket_timeout=soon", "an option has a wrong value"),
        ("redis://one?protocol=4", "protocol=4 does not exist"),
        ("redis://one?decode_responses=true", "the option decode_responses does not work. The options are client_name"),
        ("redis://one?max_connections=1&virtual_host=2", "the option max_connections, virtual_host does not work"),
        ("redis://one:port", "it is not a URL of Redis"),
        ("redis://one:70000", "it is not a URL of Redis"),
        (f"redis://:{SECRET}/slash@one", "it is not a URL of Redis"),
        (f"redis://:{SECRET}#hash@one", "it has a #. %-encode special characters"),
        ("unix://run/redis.sock", "the path of the socket is not absolute. Write unix:///run/redis.sock"),
        ("unix://", "the path of the socket is not absolute"),
        ("unix:///run/redis.sock?ssl_ca_certs=/ca", "has TLS options, but its scheme is unix"),
    ],
)
def test_an_address_that_does_not_hold_is_refused_in_one_line(url: str, words: str) -> None:
    with pytest.raises(FatalError, match=words) as refused:
        Payloads(url, "outhaul")
    assert refused.value.exit_code is Exit.SETTINGS
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)


def test_sentinels_are_read_with_their_defaults() -> None:
    url = "redis+sentinel://me:a%2Fb,c@one,two:26380,[::1]:7/3?master=my&sentinel_user=s&sentinel_password=p%26q"
    found = redis_url.address(url)
    assert found is not None
    assert found.servers == (("one", 26379), ("two", 26380), ("::1", 7))
    assert (found.kind, found.database, found.master) == (RedisKind.SENTINEL, 3, "my")
    assert (found.username, found.password) == ("me", "a/b,c")
    assert (found.sentinel_username, found.sentinel_password) == ("s", "p&q")
    assert not any(secret in repr(found) for secret in ("a/b", "p&q"))
    assert redis_url.broker_url(url) == "redis://me:a%2Fb,c@one:26379/3"
    assert redis_url.broker_url(url, ("::1", 7)) == "redis://me:a%2Fb,c@[::1]:7/3"


def test_nodes_of_a_cluster_are_read_with_their_defaults() -> None:
    url = "rediss+cluster://:x@one,two:7000"
    found = redis_url.address(url)
    assert found is not None
    assert (found.kind, found.servers, found.username) == (RedisKind.CLUSTER, (("one", 6379), ("two", 7000)), None)
    assert redis_url.broker_url(url) == "rediss://:x@one:6379/0"
    assert redis_url.client_options(url) == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


@pytest.mark.parametrize(
    ("url", "broker", "place", "options"),
    [
        ("redis://:with,comma@one/0", "redis://:with%2Ccomma@one/0", "one:6379/0", {"password": "with,comma"}),
        ("redis://one?db=2", "redis://one/2", "one:6379/2", {"db": 2}),
        ("redis://one/1?db=2", "redis://one/2", "one:6379/2", {"db": 2}),
        ("redis://one/3?socket_timeout=3&protocol=3", "redis://one/3", "one:6379/3", {"socket_timeout": 3}),
        ("redis://one?username=me&password=p%26q", "redis://me:p%26q@one/0", "one:6379/0", {"username": "me"}),
        ("redis://[::1]:7", "redis://[::1]:7/0", "::1:7/0", {"host": "::1", "port": 7}),
        ("redis:///4", "redis:///4", "localhost:6379/4", {"db": 4}),
        ("unix:///run/redis.sock?db=1", "redis://%2Frun%2Fredis.sock/1", "/run/redis.sock/1", {"db": 1}),
        ("unix://me:x@/run/redis.sock", "redis://%2Frun%2Fredis.sock/0", "/run/redis.sock/0", {"password": "x"}),
        ("rediss://one/2", "rediss://one/2", "one:6379/2", {"ssl_cert_reqs": "required"}),
    ],
)
def test_every_form_that_redis_py_takes_is_the_same_for_outhaul_and_for_celery(
    url: str, broker: str, place: str, options: dict[str, object]
) -> None:
    assert redis_url.address(url) is None
    Payloads(url, "outhaul").close()
    assert redis_url.broker_url(url) == broker
    assert redis_url.place(url) == place
    transport = configuration(load(redis_url=url))["broker_transport_options"]
    found = connection.remembered(transport["server"])
    assert {name: found[name] for name in options} == options


@pytest.mark.parametrize("url", ["redis://one", "unix:///one", "redis+cluster://one", "redis+sentinel://one?master=m"])
def test_celery_s_keys_lie_beside_ours_on_every_kind_of_server(url: str) -> None:
    settings = load(redis_url=url, source="here")
    assert settings.queue_key == "outhaul:{here}:celery:outhaul.here"
    assert configuration(settings)["broker_transport_options"]["global_keyprefix"] == "outhaul:{here}:celery:"


def test_what_celery_sends_about_the_broker_has_no_secret_in_it() -> None:
    url = f"redis+sentinel://me:{SECRET}-1@one,two/0?master=m&sentinel_password={SECRET}-2"
    options = configuration(load(redis_url=url))["broker_transport_options"]
    assert SECRET not in str(options)
    places = connection.remembered(options["server"])["places"]
    assert places.search.address.password == f"{SECRET}-1"
    assert topology.places(url, "outhaul") is places
    # Another password is another login, at once.
    changed = topology.places(url.replace("-1@", "-3@"), "outhaul")
    assert changed is not None
    assert changed is not places
