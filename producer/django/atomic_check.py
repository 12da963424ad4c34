"""Source of a module -> the lines that emit an event without a visible `atomic()` around them.

Pure. It finds `with transaction.atomic():` around the call, and `@transaction.atomic` on the enclosing functions. If a
function relies on its caller's transaction, end the line with `# in the caller's transaction`.

Source: https://docs.python.org/3/library/ast.html
"""

from __future__ import annotations

import ast

PROMISE = "in the caller's transaction"
_MODEL, _CALLS = "OutboxEvent", frozenset({"emit", "emit_many"})


def outside_atomic(source: str) -> list[int]:
    """Return the line numbers, ascending.

    Raises:
        SyntaxError: the source is not valid Python.
    """
    lines = source.splitlines()
    found: list[int] = []

    def look(node: ast.AST, *, is_inside: bool) -> None:
        match node:
            case ast.With() | ast.AsyncWith():
                is_inside = is_inside or any(_is_atomic(item.context_expr) for item in node.items)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                is_inside = is_inside or any(_is_atomic(decorator) for decorator in node.decorator_list)
            case ast.Call() if _emits(node.func) and not is_inside and PROMISE not in lines[node.lineno - 1]:
                found.append(node.lineno)
        for child in ast.iter_child_nodes(node):
            look(child, is_inside=is_inside)

    look(ast.parse(source), is_inside=False)
    return sorted(found)


def _is_atomic(node: ast.AST) -> bool:
    while isinstance(node, ast.Call):
        node = node.func
    return getattr(node, "attr", getattr(node, "id", "")) == "atomic"


def _emits(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr in _CALLS
        and getattr(node.value, "attr", getattr(node.value, "id", "")) == _MODEL
    )
