"""The pure parts of the embedded ClickHouse front around the statement: requests, codings, answers."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.deploy.local.clickhouse_http.content_codings import CodingError, compressed, decoded
from outhaul.deploy.local.clickhouse_http.http_request import Login, form_fields, login, read_request, set_statement
from outhaul.deploy.local.clickhouse_http.response_parts import Summary, content_type, failure, is_streamable
from outhaul.deploy.local.clickhouse_http.sql_statement import StatementError


def test_settings_parameters_and_steering_are_told_apart() -> None:
    request = read_request(
        "POST",
        "/?query=SELECT%20{a:String}&param_a=x%5Cty&max_threads=3&database=d&query_id=q&session_id=s&wait_end_of_query=1",
        {},
    )
    assert request.query == "SELECT {a:String}"
    assert request.parameters == {"a": "x\\ty"}
    assert request.settings == (("max_threads", "3"),)
    assert (request.database, request.query_id, request.wait_end_of_query) == ("d", "q", True)
    assert request.default_format == "TabSeparated"


def test_headers_win_over_the_url() -> None:
    headers = {"x-clickhouse-database": "h", "x-clickhouse-format": "JSON"}
    request = read_request("POST", "/?database=u&default_format=CSV", headers)
    assert (request.database, request.default_format) == ("h", "JSON")


def test_a_query_id_is_made_up_when_missing() -> None:
    assert read_request("POST", "/", {}).query_id != read_request("POST", "/", {}).query_id


@pytest.mark.parametrize(("target", "value"), [("/", "2"), ("/?readonly=0", "2"), ("/?readonly=1&max_threads=1", "1")])
def test_what_is_not_a_post_only_reads(target: str, value: str) -> None:
    assert read_request("GET", target, {}).settings[-1] == ("readonly", value)


def test_responses_are_compressed_only_when_asked_twice() -> None:
    headers = {"accept-encoding": "gzip;q=1, zstd"}
    assert read_request("POST", "/", headers).compression is None
    assert read_request("POST", "/?enable_http_compression=1", headers).compression == "zstd"
    assert read_request("POST", "/?enable_http_compression=1", {"accept-encoding": "br"}).compression is None


def test_a_setting_cannot_smuggle_in_sql() -> None:
    with pytest.raises(StatementError) as caught:
        read_request("POST", "/?max_threads%3D1%2C%20x=2", {})
    assert caught.value.code == 115
    assert set_statement([("a", "it's\\"), ("b", "1")]) == r"SET a = 'it\'s\\', b = '1'"


def test_bytes_that_are_no_text_pass_in_the_query_only() -> None:
    assert read_request("POST", "/?query=SELECT+'%FF'", {}).query == "SELECT '\udcff'"
    for target in ("/?param_a=%FF", "/?log_comment=%FF", "/?database=%FF"):
        with pytest.raises(StatementError) as caught:
            read_request("POST", target, {})
        assert caught.value.code == 36


def test_clickhouse_compression_is_refused_plainly() -> None:
    with pytest.raises(StatementError, match="Content-Encoding") as caught:
        read_request("POST", "/?decompress=1", {})
    assert caught.value.code == 48
    assert read_request("POST", "/?decompress=0&compress=0", {}).settings == ()


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        ("/", {}, Login("default", "")),
        ("/?user=u&password=p%20q", {}, Login("u", "p q")),
        ("/?user=u", basic("b:p:q"), Login("b", "p:q")),
        ("/", {**basic("b:p"), "x-clickhouse-user": "x", "x-clickhouse-key": "k"}, Login("x", "k")),
        ("/", {"x-clickhouse-key": "k"}, Login("default", "k")),
    ],
)
def test_login_is_found_where_clickhouse_looks_for_it(target: str, headers: dict[str, str], expected: Login) -> None:
    assert login(target, headers) == expected


@pytest.mark.parametrize("value", ["Bearer abc", "Basic !!!", "Basic /w=="])
def test_other_logins_are_refused(value: str) -> None:
    with pytest.raises(StatementError) as caught:
        login("/", {"authorization": value})
    assert caught.value.code == 516


def test_form_fields_are_read_and_files_refused() -> None:
    kind = "multipart/form-data; boundary=xx"
    field = b'--xx\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT\n1 \xc3\xa9\r\n'
    assert form_fields(kind, field + b"--xx--\r\n") == [("query", "SELECT\n1 é")]
    file = b'--xx\r\nContent-Disposition: form-data; name="t"; filename="t"\r\n\r\n1\r\n--xx--\r\n'
    with pytest.raises(StatementError) as caught:
        form_fields(kind, field + file)
    assert caught.value.code == 48


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd", "lz4"])
@given(parts=st.lists(st.binary(max_size=200), max_size=5), size=st.integers(1, 50), repeats=st.integers(1, 2))
def test_codings_round_trip_in_any_pieces(coding: str, parts: list[bytes], size: int, repeats: int) -> None:
    packed = b"".join(compressed(iter(parts), coding)) * repeats
    wire = (packed[at : at + size] for at in range(0, len(packed), size))
    assert b"".join(decoded(wire, coding)) == b"".join(parts) * repeats


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd", "lz4"])
@given(data=st.data())
def test_a_cut_coding_is_an_error(coding: str, data: st.DataObject) -> None:
    packed = b"".join(compressed(iter([b"some rows\n" * 10]), coding))
    cut = data.draw(st.integers(1, len(packed) - 1))
    with pytest.raises(CodingError):
        list(decoded(iter([packed[:cut]]), coding))


@pytest.mark.parametrize("coding", ["gzip", "zstd", "lz4", "snappy"])
def test_nonsense_is_an_error_of_the_coding(coding: str) -> None:
    with pytest.raises(CodingError):
        list(decoded(iter([b"these are no compressed bytes"]), coding))


def test_an_error_gets_the_servers_words_and_status() -> None:
    told = failure("Code: 60. DB::Exception: Table t does not exist. (UNKNOWN_TABLE)", "26.5")
    assert (told.code, told.status) == (60, 404)
    assert (
        told.text == "Code: 60. DB::Exception: Table t does not exist. (UNKNOWN_TABLE) (version 26.5 (official build))"
    )


def test_an_error_wrapped_into_itself_is_unwrapped() -> None:
    told = failure(
        "Code: 73. DB::Exception: Code: 73. DB::Exception: Unknown format X. (UNKNOWN_FORMAT) (version 26.5.1.1). "
        "(UNKNOWN_FORMAT)",
        "26.5.1.1",
    )
    assert (
        told.text == "Code: 73. DB::Exception: Unknown format X. (UNKNOWN_FORMAT) (version 26.5.1.1 (official build))"
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (62, 400),
        (60, 404),
        (81, 404),
        (516, 403),
        (497, 403),
        (159, 408),
        (48, 501),
        (202, 500),
        (395, 500),
        (252, 500),
    ],
)
def test_statuses_are_clickhouses(code: int, status: int) -> None:
    assert failure(f"Code: {code}. DB::Exception: x. (X)", "1").status == status


def test_a_message_without_a_code_is_still_an_error() -> None:
    told = failure("something odd", "1")
    assert (told.code, told.status) == (1000, 500)


def test_the_summary_has_numbers_as_strings() -> None:
    header = json.loads(Summary.of({"written_rows": 3, "unknown": 4}).header())
    assert header["written_rows"] == "3"
    assert header["read_rows"] == "0"
    assert "unknown" not in header


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Native", "application/octet-stream"),
        ("ArrowStream", "application/octet-stream"),
        ("JSONCompact", "application/json; charset=UTF-8"),
        ("JSONEachRow", "application/x-ndjson; charset=UTF-8"),
        ("TabSeparated", "text/tab-separated-values; charset=UTF-8"),
        ("Pretty", "text/plain; charset=UTF-8"),
    ],
)
def test_content_types_are_clickhouses(name: str, kind: str) -> None:
    assert content_type(name) == kind


def test_only_formats_without_head_and_foot_are_sent_in_pieces() -> None:
    assert is_streamable("Native")
    assert not any(is_streamable(name) for name in ("JSON", "CSVWithNames", "ArrowStream", "Parquet"))
