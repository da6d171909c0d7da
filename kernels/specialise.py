"""Make a kernel's source of a template and the formulas it calls, and load it: inline, write, import.

A template is an ordinary Python function over arrays. It calls formulas by placeholder names (`activation`,
`rule`, ...) and branches on upper-case flags. `specialise` binds the flags, drops the branches and parameters
they leave unused, inlines every formula down to native calls, and gives each float literal the kernel's
dtype. A formula's hyperparameters (momentum, label smoothing, Huber's delta, ...) become parameters of the
kernel, so that no value of them is compiled anew. Against literals that makes Adam's update a tenth faster, a
binary cross-entropy over ten outputs 4 % slower (0.4 µs at 128 rows), and no difference to a step. What
several templates share is a part, a function of a module that the target names: it is inlined
too, sees the flags and placeholders, and may be a statement that returns nothing. The text that results is
all that the kernel is made of: it is a module named by its hash (`modules`), so Numba's disk cache, which
watches the file of the function alone, is right about it. An edited formula is another text and another file.

Reference: why Numba's cache cannot see through closures and calls, numba.readthedocs.io, "Notes on Caching".
"""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from nnkit.errors import ConfigError
from nnkit.kernels.locks import loading, uninterrupted
from nnkit.kernels.modules import (
    load_source,
    source_name,
    source_path,
    write_source,
)

__all__ = [
    "MODULES",
    "LoadedKernel",
    "Specialised",
    "Target",
    "load_kernel",
    "specialise",
    "split_constants",
]

Formulas = Mapping[str, Callable]
Constant = bool | int | float
Hyperparameters = Mapping[str, float]

MODULES: Mapping[str, str] = {"math": "math", "numpy": "np"}
"""The modules that every generated module imports, and as what."""


@dataclass(frozen=True)
class Target:
    """What a kernel is written for: its imports, its decorator, and what elementary names mean.

    Parameters
    ----------
    name : str
        Short name for the file, such as ``host_float32``.
    imports : str
        The lines at the top of the generated module.
    decorator : str
        The decorator's expression.
    real : str
        The expression of the working type that float literals take, such as ``np.float32``.
    native : mapping of str to str
        Names that become other expressions, such as ``exp`` to ``math.exp``.
    formulas : mapping of str to function
        Elementary functions that are inlined as formulas.
    wide : frozenset of str
        Placeholders whose formulas compute in float64 whatever the dtype.
    parts : frozenset of str
        The modules whose functions are parts of templates.
    modules : mapping of str to str
        What `imports` imports, and as what.
    entry : function of three str, optional
        Makes the kernel's entry of its module's name, its source and its own name; by default, what the
        module defines.
    """

    name: str
    imports: str
    decorator: str
    real: str
    native: Mapping[str, str]
    formulas: Formulas
    wide: frozenset[str] = frozenset({"prepare", "linger", "scale_after"})
    parts: frozenset[str] = frozenset()
    modules: Mapping[str, str] = field(default_factory=lambda: MODULES)
    entry: Callable[[str, str, str], Any] | None = None


@dataclass(frozen=True)
class _Scalar:
    """A value that the formulas compute from hyperparameters alone.

    Parameters
    ----------
    text : str
        The expression, over the hyperparameters' names.
    value : function of a mapping of str to float
        The same, in float64.
    """

    text: str
    value: Callable[[Hyperparameters], float]

    @classmethod
    def named(cls, name: str) -> _Scalar:
        """Return a hyperparameter as it is."""
        return cls(name, lambda given: float(given[name]))

    @classmethod
    def of(cls, value: float | _Scalar) -> _Scalar:
        """Return a number as such a value."""
        return value if isinstance(value, _Scalar) else cls(repr(value), lambda given: value)

    def minus(self, other: _Scalar) -> _Scalar:
        """Return the difference."""
        return _Scalar(f"({self.text} - {other.text})", lambda given: self.value(given) - other.value(given))


@dataclass(frozen=True)
class Specialised:
    """A kernel's source, the names of its parameters, and what those are that come of hyperparameters.

    Parameters
    ----------
    source : str
        Of one module with one function.
    parameters : tuple of str
        The function's: those of the template's that are left, then one for each value that the formulas take
        of the hyperparameters in one type.
    scalars : mapping of str to (str, _Scalar)
        The type and the value of each of the latter.
    """

    source: str
    parameters: tuple[str, ...]
    scalars: Mapping[str, tuple[str, _Scalar]]

    def values(self, hyperparameters: Hyperparameters) -> dict[str, Any]:
        """Return the arguments that stand for these hyperparameters: computed in float64, then rounded."""
        return {
            name: getattr(np, real.removeprefix("np."))(scalar.value(hyperparameters))
            for name, (real, scalar) in self.scalars.items()
        }


@dataclass(frozen=True)
class LoadedKernel:
    """A specialised kernel: its entry, its remaining parameters, and its source's path, if any."""

    name: str
    entry: Any
    specialised: Specialised
    path: Path | None

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the entry's parameters, in order."""
        return self.specialised.parameters

    def bind(self, arguments: Mapping[str, Any], hyperparameters: Hyperparameters) -> list[Any]:
        """Return the entry's arguments in order; those that it does not take are left out."""
        given = {**arguments, **self.specialised.values(hyperparameters)}
        return [given[parameter] for parameter in self.parameters]


def split_constants(
    constants: Mapping[str, Constant],
) -> tuple[dict[str, Constant], dict[str, float]]:
    """Return the flags, which are folded into a kernel's source, and the hyperparameters, its parameters.

    Hyperparameters are the floats: they have more values than are worth a kernel each. A bool or an int has
    few, and leaves branches out.
    """
    passed = {key: value for key, value in constants.items() if isinstance(value, float)}
    return {key: value for key, value in constants.items() if key not in passed}, passed


def specialise(
    template: Callable,
    formulas: Formulas,
    constants: Mapping[str, Constant],
    hyperparameters: Collection[str],
    target: Target,
) -> Specialised:
    """Make the source of one module with one function: the template with everything bound and inlined.

    Parameters
    ----------
    template : function
        The loop.
    formulas : mapping of str to function
        What each placeholder that the template calls stands for.
    constants : mapping of str to bool, int or float
        The template's upper-case flags, and those of the formulas' further parameters that choose between two
        forms of one.
    hyperparameters : collection of str
        The names of the formulas' other parameters that no call gives, which become the kernel's.
    target : Target
        The device and dtype.
    """
    inliner = _Inliner(formulas, constants, hyperparameters, target, template)
    function = _parsed(template)
    function.body = _without_unread(inliner.block(function.body))
    used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    scalars = {name: key for key, name in inliner.scalars.items() if name in used}
    parameters = [argument.arg for argument in function.args.args if argument.arg in used] + list(scalars)
    function.args = _arguments(list(map(ast.arg, parameters)))
    function.decorator_list = [_expression(target.decorator)]
    function.returns = None
    literals = [f'{name} = {kind}("{value!r}")' for (kind, value), name in inliner.literals.items()]
    notes = [f"# {name}: {kind}({text})" for name, (kind, text) in scalars.items()]
    body = ast.unparse(ast.fix_missing_locations(function))
    source = "\n".join([target.imports, *literals, "", "", *notes, body, ""])
    kinds = {name: (kind, inliner.meanings[name]) for name, (kind, _) in scalars.items()}
    return Specialised(source, tuple(parameters), kinds)


def load_kernel(
    template: Callable,
    formulas: Formulas,
    constants: Mapping[str, Constant],
    hyperparameters: Collection[str],
    target: Target,
) -> LoadedKernel:
    """Specialise, write the source to the cache unless it lies there, and import it."""
    # One thread at a time: Python 3.11's `ast.parse` fails where two threads are in it.
    with uninterrupted(), loading:
        specialised = specialise(template, formulas, constants, hyperparameters, target)
        source = specialised.source
        name = source_name(f"{template.__name__}_{target.name}", source)
        make = target.entry or _defined
        write_source(name, source)
        entry = make(name, source, template.__name__)
        return LoadedKernel(template.__name__, entry, specialised, source_path(name))


def _defined(name: str, source: str, function: str) -> Any:
    return getattr(load_source(name, source), function)


def _parsed(function: Callable) -> ast.FunctionDef:
    """Return a function's tree, the caller's own to change: parsing anew is faster than copying one."""
    if not isinstance(function, FunctionType):
        raise ConfigError(f"a formula must be a plain Python function, not {function!r}")
    try:
        tree = ast.parse(_text(function))
    except (OSError, SyntaxError, IndentationError) as error:
        raise ConfigError(
            f"the source of the formula {function.__name__!r} cannot be read ({error}); "
            "define it with `def` in a file"
        ) from error
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef):
        raise ConfigError(f"the formula {function.__name__!r} must be written with `def`")
    return node


@cache
def _text(function: FunctionType) -> str:
    return textwrap.dedent(inspect.getsource(function))


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    return [
        node for node in body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]


def _without_unread(body: list[ast.stmt]) -> list[ast.stmt]:
    """Drop the names that an inlined formula's parameters left and no branch that stayed reads.

    An array that is only renamed would else remain a parameter, for which there may be no array.
    """
    tree = ast.Module(body, [])
    nodes = list(ast.walk(tree))
    read = Counter(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    # `x += y` reads x, though its context says that it stores.
    read.update(n.target.id for n in nodes if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name))
    renames = [
        (node, {target.id for target in node.targets if isinstance(target, ast.Name)}, node.value.id)
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name)
    ]
    unread: list[ast.Assign] = []
    while dropped := [rename for rename in renames if rename[1] and not any(map(read.get, rename[1]))]:
        # What only these read is not read either.
        read.subtract(name for _, _, name in dropped)
        renames = [rename for rename in renames if rename not in dropped]
        unread += [node for node, _, _ in dropped]
    return _Without(unread).visit(tree).body if unread else body


class _Without(ast.NodeTransformer):
    """Leaves statements out."""

    def __init__(self, unwanted: list[ast.Assign]) -> None:
        self._unwanted = set(map(id, unwanted))

    def visit_Assign(self, node: ast.Assign) -> ast.Assign | None:
        return None if id(node) in self._unwanted else node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.If | ast.For) and not node.body:
            node.body = [ast.Pass()]
        return node


def _arguments(arguments: list[ast.arg]) -> ast.arguments:
    return ast.arguments(posonlyargs=[], args=arguments, kwonlyargs=[], kw_defaults=[], defaults=[])


@dataclass(frozen=True)
class _Scope:
    """One function being rewritten: what its locals are called now, and what its other names mean."""

    function: str
    names: Mapping[str, str]
    namespace: Mapping[str, object]
    constants: Mapping[str, Constant | _Scalar]
    placeholders: Formulas


class _Inliner(ast.NodeTransformer):
    """Rewrites statements: binds constants, folds branches, inlines formulas, types float literals.

    Attributes
    ----------
    literals : dict of (str, float) to str
        The names of the float literals, by type and value.
    scalars : dict of (str, str) to str
        The names of the values that come of hyperparameters, by type and expression.
    meanings : dict of str to _Scalar
        What those are.
    """

    def __init__(
        self,
        formulas: Formulas,
        constants: Mapping[str, Constant],
        hyperparameters: Collection[str],
        target: Target,
        template: Callable,
    ) -> None:
        self.literals: dict[tuple[str, float], str] = {}
        self.scalars: dict[tuple[str, str], str] = {}
        self.meanings: dict[str, _Scalar] = {}
        self._real = target.real
        self._constants: Mapping[str, Constant | _Scalar] = {
            **constants,
            **{name: _Scalar.named(name) for name in hyperparameters},
        }
        self._target = target
        self._template_locals = _locals(_parsed(template))
        self._placeholders = formulas
        own = {name: name for name in self._template_locals}
        self._scope = _Scope(template.__name__, own, template.__globals__, self._constants, formulas)
        self._before: list[ast.stmt] = []
        self._inlined = 0

    def block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """Rewrite statements; what an inlined formula computes comes before the statement that calls it."""
        rewritten: list[ast.stmt] = []
        for statement in _without_docstring(statements):
            outer, self._before = self._before, []
            new = self._statement(statement)
            rewritten += self._before + new
            self._before = outer
        return rewritten

    def _statement(self, node: ast.stmt) -> list[ast.stmt]:
        if isinstance(node, ast.If):
            test = self.visit(node.test)
            if isinstance(test, ast.Constant):
                return self.block(node.body if test.value else node.orelse)
            return [ast.If(test, self.block(node.body) or [ast.Pass()], self.block(node.orelse))]
        if isinstance(node, ast.For):
            target, iterator = self.visit(node.target), self.visit(node.iter)
            return [ast.For(target, iterator, self.block(node.body), [])]
        if isinstance(node, (ast.While, ast.With, ast.Try)):
            kind = type(node).__name__.lower()
            raise ConfigError(f"the formula {self._scope.function!r} cannot hold a {kind} block")
        if isinstance(node, ast.Expr):
            value = self.visit(node.value)
            return [ast.Expr(value)] if isinstance(value, ast.Call) else []
        return [self.visit(node)]

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self._scope.names:
            return ast.Name(self._scope.names[node.id], node.ctx)
        if node.id in self._scope.constants:
            return self._constant(self._scope.constants[node.id])
        if node.id in self._target.native and self._is_the_targets(node.id):
            return _expression(self._target.native[node.id])
        value = self._scope.namespace.get(node.id)
        if isinstance(value, bool | int | float | np.number):
            return self._constant(value)
        if isinstance(value, ModuleType) and value.__name__ in self._target.modules:
            return ast.Name(self._target.modules[value.__name__], ast.Load())
        module = self._target.modules.get(getattr(value, "__module__", None) or "")
        if module is not None:
            return _expression(f"{module}.{getattr(value, '__name__', node.id)}")
        if hasattr(builtins, node.id):
            return ast.Name(node.id, node.ctx)
        raise ConfigError(
            f"the formula {self._scope.function!r} uses {node.id!r}, which is no number, no function and no "
            "function of math or numpy"
        )

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return self._constant(node.value)

    def _constant(self, value: object) -> ast.expr:
        if isinstance(value, _Scalar):
            name = self.scalars.setdefault((self._real, value.text), f"P{len(self.scalars)}")
            self.meanings[name] = value
            return ast.Name(name, ast.Load())
        if isinstance(value, np.number):
            value = value.item()
        if isinstance(value, float):
            return ast.Name(
                self.literals.setdefault((self._real, value), f"C{len(self.literals)}"), ast.Load()
            )
        return ast.Constant(value)  # type: ignore[arg-type]

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """Take a difference of constants in float64: 1 − β₂ loses five digits in float32."""
        left, right = self.visit(node.left), self.visit(node.right)
        if isinstance(node.op, ast.Sub):
            known = self._known()
            first, second = (known.get(getattr(side, "id", "")) for side in (left, right))
            if isinstance(first, float) and isinstance(second, float):
                return self._constant(first - second)
            if first is not None and second is not None:
                return self._constant(_Scalar.of(first).minus(_Scalar.of(second)))
        return ast.BinOp(left, node.op, right)

    def _known(self) -> dict[str, float | _Scalar]:
        """Return the names that stand for literals and for what comes of hyperparameters, in this type."""
        literals: dict[str, float | _Scalar] = {
            name: value for (kind, value), name in self.literals.items() if kind == self._real
        }
        return literals | {
            name: self.meanings[name] for (kind, _), name in self.scalars.items() if kind == self._real
        }

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        operand = self.visit(node.operand)
        if isinstance(node.op, ast.Not) and isinstance(operand, ast.Constant):
            return ast.Constant(not operand.value)
        return ast.UnaryOp(node.op, operand)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        decides = isinstance(node.op, ast.Or)
        values = [self.visit(value) for value in node.values]
        known = [bool(value.value) for value in values if isinstance(value, ast.Constant)]
        unknown = [value for value in values if not isinstance(value, ast.Constant)]
        if decides in known or not unknown:
            return ast.Constant(decides if decides in known else not decides)
        return unknown[0] if len(unknown) == 1 else ast.BoolOp(node.op, unknown)

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        left, right = self.visit(node.left), [self.visit(value) for value in node.comparators]
        compared = ast.Compare(left, node.ops, right)
        if all(isinstance(value, ast.Constant) for value in (left, *right)):
            return ast.Constant(_truth(compared))
        return compared

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        test = self.visit(node.test)
        if isinstance(test, ast.Constant):
            return self.visit(node.body if test.value else node.orelse)
        return ast.IfExp(test, self.visit(node.body), self.visit(node.orelse))

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if node.keywords:
            raise ConfigError(
                f"the formula {self._scope.function!r} must give values by position, "
                f"not by name: {ast.unparse(node)}"
            )
        arguments = [self.visit(argument) for argument in node.args]
        if isinstance(node.func, ast.Name) and node.func.id not in self._scope.names:
            formula = self._formula(node.func.id)
            if formula is not None:
                outer = self._real
                self._real = "np.float64" if node.func.id in self._target.wide else outer
                result = self._inline(formula, arguments)
                self._real = outer
                return result
        return ast.Call(self.visit(node.func), arguments, [])

    def _formula(self, name: str) -> Callable | None:
        if name in self._scope.placeholders:
            return self._scope.placeholders[name]
        if self._is_the_targets(name):
            if name in self._target.native:
                return None
            if name in self._target.formulas:
                return self._target.formulas[name]
        value = self._scope.namespace.get(name)
        return value if isinstance(value, FunctionType) else None

    def _is_the_targets(self, name: str) -> bool:
        """Whether a name may mean the target's function: a user's module may use it for something else."""
        if name not in self._scope.namespace:
            return True
        module = getattr(self._scope.namespace[name], "__module__", None) or ""
        return module in self._target.modules or module.startswith("nnkit.kernels.")

    def _inline(self, formula: Callable, arguments: list[ast.expr]) -> ast.expr:
        definition = _parsed(formula)
        part = formula.__module__ in self._target.parts
        body, returned = _split_return(definition)
        if returned is None and not (part and body):
            raise ConfigError(f"the formula {definition.name!r} must end with its one `return`")
        self._inlined += 1
        parameters = [argument.arg for argument in definition.args.args]
        # What the call does not give is a constant or a variable of the template's, by the same name.
        known = {*self._constants, *self._template_locals}
        fixed = {name for name in parameters[len(arguments) :] if name in known}
        if len(arguments) + len(fixed) != len(parameters):
            raise ConfigError(
                f"the formula {definition.name!r} takes {', '.join(parameters)}; "
                f"{len(arguments)} values were given"
            )
        names = {name: f"{name}_{self._inlined}" for name in _locals(definition) - fixed}
        constants = {name: self._constants[name] for name in fixed if name in self._constants}
        for name, argument in zip(parameters, arguments, strict=False):
            self._before.append(_assign(names[name], argument))
        names.update({name: name for name in fixed if name not in constants})
        namespace = {**formula.__globals__, **inspect.getclosurevars(formula).nonlocals}
        inner = _Scope(definition.name, names, namespace, constants, {})
        if part:
            inner = replace(inner, constants=self._constants, placeholders=self._placeholders)
        outer, self._scope = self._scope, inner
        result = f"result_{self._inlined}"
        for statement in body:
            self._before += self.block([statement])
        value = None if returned is None else self.visit(returned)
        self._scope = outer
        if value is None:
            return ast.Constant(None)
        self._before.append(_assign(result, value))
        return ast.Name(result, ast.Load())


def _split_return(function: ast.FunctionDef) -> tuple[list[ast.stmt], ast.expr | None]:
    """Return the body without its one last `return`, and that one's value; no body where others return."""
    body = _without_docstring(function.body)
    returns = sum(isinstance(node, ast.Return) for node in ast.walk(function))
    if returns == 1 and isinstance(body[-1], ast.Return):
        return body[:-1], body[-1].value
    return ([], None) if returns else (body, None)


def _locals(function: ast.FunctionDef) -> set[str]:
    stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | {argument.arg for argument in function.args.args}


def _truth(comparison: ast.Compare) -> bool:
    compiled = compile(ast.fix_missing_locations(ast.Expression(comparison)), "<flags>", "eval")
    return bool(eval(compiled, {"__builtins__": {}}))


def _assign(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body
