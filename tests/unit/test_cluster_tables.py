"""`outhaul setup --cluster` makes the tables of a single server, but that they are replicated."""

from __future__ import annotations

from outhaul.sink.schema import ddl
from outhaul.sink.settings import load

SETTINGS = load(more_tables="public.audit=audit_log")


def test_a_cluster_s_tables_are_those_of_one_server_replicated_and_one_name_for_all_shards() -> None:
    plain = list(ddl(SETTINGS))
    clustered = [(name, text) for name, text in ddl(SETTINGS, "it's ours") if "/cluster/" not in name]
    assert [name for name, _ in clustered] == [name for name, _ in plain]
    for (_, there), (_, here) in zip(clustered, plain, strict=True):
        assert there.count(r" ON CLUSTER 'it\'s ours'") == 1
        # A table in memory has the owners of one server alone.
        assert there.count("ENGINE = Replicated") == here.count("ENGINE = ") - here.count("ENGINE = Memory")
        alone = there.replace(r" ON CLUSTER 'it\'s ours'", "").replace("ENGINE = Replicated", "ENGINE = ")
        assert alone == here
    above = [text for name, text in ddl(SETTINGS, "it's ours") if "/cluster/" in name]
    assert [text.count(r"ENGINE = Distributed('it\'s ours', currentDatabase(), ") for text in above] == [1, 1]
