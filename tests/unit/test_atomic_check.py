"""Where an event is emitted, a transaction is to be seen around it."""

import textwrap

import pytest

from outhaul.django.atomic_check import outside_atomic


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("OutboxEvent.emit('a', {})", [1]),
        ("models.OutboxEvent.emit_many([])", [1]),
        ("with transaction.atomic():\n    OutboxEvent.emit('a', {})", []),
        ("with atomic(using='x'), open('f'):\n    if x:\n        OutboxEvent.emit('a', {})", []),
        ("@transaction.atomic\ndef f():\n    OutboxEvent.emit('a', {})", []),
        ("@transaction.atomic(durable=True)\nasync def f():\n    OutboxEvent.emit('a', {})", []),
        ("def f():\n    with open('f'):\n        OutboxEvent.emit('a', {})", [3]),
        ("def f():\n    with atomic():\n        pass\n    OutboxEvent.emit('a', {})", [4]),
        ("def f():\n    OutboxEvent.emit('a', {})  # in the caller's transaction", []),
        ("def f():\n    signal.emit('a')\n    OutboxEvent.objects.count()", []),
    ],
)
def test_a_call_is_named_unless_a_transaction_is_to_be_seen(source: str, lines: list[int]) -> None:
    assert outside_atomic(textwrap.dedent(source)) == lines


def test_what_is_no_python_is_an_error() -> None:
    with pytest.raises(SyntaxError):
        outside_atomic("OutboxEvent.emit(")
