"""Pages of the repository become pages of the site: each link leads to the same thing, and lists are lists."""

import pytest

from outhaul.deploy.site.pages import file_page, folder_page, link_targets, site_page, site_path


def lead(link: str, path: str) -> str:
    page = site_page(f"see [it]({link}), please\n", path, lambda target: target in {"docs/adr", "deploy/grafana"})
    return page.removeprefix("see [it](").removesuffix("), please\n")


@pytest.mark.parametrize(
    ("path", "link", "there"),
    [
        ("README.md", "docs/metrics.md#reader", "metrics.md#reader"),
        ("README.md", "docs/adr", "adr/README.md"),
        ("README.md", "docs/images/demo.svg", "images/demo.svg"),
        ("docs/metrics.md", "runbooks/README.md", "runbooks/README.md"),
        ("docs/metrics.md", "../README.md", "index.md"),
        ("docs/metrics.md", "../sql/clickhouse/users/monitor.sql", "sql/clickhouse/users/monitor.sql.md"),
        ("docs/metrics.md", "../deploy/grafana", "deploy/grafana/README.md"),
        ("docs/runbooks/failover.md", "../operations.md#replay-and-rebuild", "../operations.md#replay-and-rebuild"),
        ("deploy/grafana/README.md", "../../docs/metrics.md", "../../metrics.md"),
        ("README.md", "https://example.org/docs/metrics.md", "https://example.org/docs/metrics.md"),
        ("README.md", "#speed", "#speed"),
    ],
)
def test_a_link_leads_to_the_same_thing(path: str, link: str, there: str) -> None:
    assert lead(link, path) == there


def test_what_looks_like_a_link_in_code_stays() -> None:
    code = "```python\nrows[0](docs/metrics.md)\n```\n"
    assert site_page(code, "README.md", lambda _: False) == code
    assert list(link_targets(code, "README.md")) == []


def test_a_list_after_a_line_begins_after_an_empty_one() -> None:
    text = "Limits:\n- one\n  goes on\n- two\n\n1. three\n```\nx:\n- y\n```\n"
    made = site_page(text, "README.md", lambda _: False)
    assert made == "Limits:\n\n- one\n  goes on\n- two\n\n1. three\n```\nx:\n- y\n```\n"


def test_a_page_names_all_that_it_links_to_as_the_repository_does() -> None:
    text = "[a](../sql/x.sql) and [b](metrics.md#c), [d](https://example.org), [e](#f)\n"
    assert list(link_targets(text, "docs/operations.md")) == ["sql/x.sql", "docs/metrics.md"]


def test_a_file_and_a_folder_have_pages_that_show_them() -> None:
    assert site_path("deploy/prometheus/outhaul.rules.yml") == "deploy/prometheus/outhaul.rules.yml.md"
    assert "````yaml\na: 1\n````" in file_page("deploy/x.yml", "a: 1\n")
    text = folder_page("deploy/prometheus", ["b.yml", "a.yml"])
    assert list(link_targets(text, "deploy/prometheus/README.md")) == [
        "deploy/prometheus/a.yml",
        "deploy/prometheus/b.yml",
    ]
