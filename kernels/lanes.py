"""Four neighbouring elements by one name: how the templates of `cuda` are written, and how they are expanded.

In a template a variable whose name ends in 4 stands for four variables, the lanes: `x4` for x0, x1, x2 and
x3.

- A statement that names it, and an `if` whose condition does, is repeated for each lane: ``y4 = relu(x4)`` is
  ``y0 = relu(x0)`` and so on. LANE is the lane's number, 0 to 3.
- A function whose name ends in 4 takes and returns all lanes at once: ``x4 = read4(row, j, stop)`` is
  ``x0, x1, x2, x3 = read4(row, j, stop)``, and ``write4(row, j, stop, x4)`` is given x0 to x3.
- As a parameter, or after `return`, it is all four.
"""

from __future__ import annotations

import ast
from copy import deepcopy

__all__ = ["LANE", "expand_lanes"]

LANE = 0
_LANES = range(4)


def expand_lanes(text: str) -> str:
    """Return a function's source with all lanes written out."""
    tree = ast.parse(text)
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    local = stored | {argument.arg for argument in function.args.args}
    expander = _Expander(frozenset(name for name in local if name.endswith("4")))
    function.args.args = [
        ast.arg(name) for argument in function.args.args for name in expander.names_of(argument.arg)
    ]
    function.body = expander.block(function.body)
    return ast.unparse(ast.fix_missing_locations(tree))


class _OneLane(ast.NodeTransformer):
    """Replaces the fourfold names and LANE by those of one lane."""

    def __init__(self, fourfold: frozenset[str], lane: int) -> None:
        self._fourfold = fourfold
        self._lane = lane

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id == "LANE":
            return ast.Constant(self._lane)
        return ast.Name(f"{node.id[:-1]}{self._lane}", node.ctx) if node.id in self._fourfold else node


class _Expander(ast.NodeTransformer):
    """Writes out the lanes of statements."""

    def __init__(self, fourfold: frozenset[str]) -> None:
        self._fourfold = fourfold

    def names_of(self, name: str) -> list[str]:
        """Return the names of a variable's lanes, or its own."""
        return [f"{name[:-1]}{lane}" for lane in _LANES] if name in self._fourfold else [name]

    def block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """Write out the lanes of statements and of those inside them."""
        return [new for statement in statements for new in self._expanded(statement)]

    def _expanded(self, node: ast.stmt) -> list[ast.stmt]:
        if isinstance(node, ast.Return) and node.value is not None:
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            expanded = [self._returned(value) for value in values]
            return [ast.Return(expanded[0] if len(values) == 1 else ast.Tuple(expanded, ast.Load()))]
        if isinstance(node, ast.If | ast.For):
            if isinstance(node, ast.If) and self._differs(node.test):
                return self._repeated(node)
            node.body, node.orelse = self.block(node.body), self.block(node.orelse)
        elif self._differs(node) and not _takes_all(getattr(node, "value", None)):
            return self._repeated(node)
        return [self.visit(node)]

    def _differs(self, node: ast.AST) -> bool:
        """Whether the code differs between the lanes, apart from what takes all of them."""
        if isinstance(node, ast.Name):
            return node.id == "LANE" or node.id in self._fourfold
        return not _takes_all(node) and any(map(self._differs, ast.iter_child_nodes(node)))

    def _returned(self, node: ast.expr) -> ast.expr:
        if self._differs(node) and not _takes_all(node):
            lanes = [_OneLane(self._fourfold, lane).visit(deepcopy(node)) for lane in _LANES]
            return ast.Tuple(lanes, ast.Load())
        return self.visit(node)

    def _repeated(self, node: ast.stmt) -> list[ast.stmt]:
        return [_OneLane(self._fourfold, lane).visit(deepcopy(node)) for lane in _LANES]

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self._fourfold:
            return node
        return ast.Tuple([ast.Name(name, node.ctx) for name in self.names_of(node.id)], node.ctx)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        arguments: list[ast.expr] = []
        for argument in node.args:
            visited = self.visit(argument)
            arguments += visited.elts if isinstance(argument, ast.Name) and argument != visited else [visited]
        return ast.Call(node.func, arguments, node.keywords)


def _takes_all(node: ast.AST | None) -> bool:
    if isinstance(node, ast.IfExp):
        return _takes_all(node.body) and _takes_all(node.orelse)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("4")
