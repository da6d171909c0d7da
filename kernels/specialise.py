"""Make a kernel's source from a template and the formulas it calls, and load it.

A template is an ordinary Python function over arrays. It calls formulas by placeholder names (`activation`,
`rule`, ...), branches on upper-case flags, and shares parts with other templates: functions of the modules
that the target names. Specialising it

- folds the flags and drops the branches and parameters that they leave unused,
- inlines every formula and part, down to native calls,
- gives each float literal the kernel's dtype,
- turns the formulas' hyperparameters (momentum, label smoothing, Huber's delta, ...) into parameters, so
  that a new value compiles nothing. Compared with literals, Adam's update is a tenth faster, a binary
  cross-entropy over ten outputs 4 % slower (0.4 µs at 128 rows), and a step takes the same time.

The kernel depends on nothing but the resulting text, which is a module named by its hash (`modules`). So
Numba's disk cache, which watches only the file of the function, is valid: an edited formula gives another
file.

A template or a part may take its kernel's arguments by name: ``given.inputs`` is the argument `inputs`, and
`given` is passed on to parts. The catalogue declares these arguments.

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
from math import inf, nan
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from nnkit.errors import ConfigError
from nnkit.kernels.locks import loading, uninterrupted
from nnkit.kernels.modules import load_source, source_name, source_path, write_source

__all__ = [
    "FUNCTIONS",
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
"""The modules that every generated module imports, and the names that it gives them."""

FUNCTIONS = ("exp", "expm1", "log", "log1p", "tanh", "erf", "sqrt")
"""The elementary functions that a target provides."""

# Placeholders for formulas that compute in float64 whatever the dtype.
_WIDE = frozenset({"prepare", "decay_unseen", "scale_after"})
_GIVEN = "given"


@dataclass(frozen=True)
class Target:
    """A device and dtype for kernels: their imports, their decorator, and the meaning of elementary names."""

    name: str
    """Short name for the file, such as ``host_float32``."""
    imports: str
    """The lines at the top of the generated module."""
    decorator: str
    real: str
    """The expression of the working type that float literals take, such as ``np.float32``."""
    native: Mapping[str, str]
    """Names to replace by expressions, such as ``exp`` by ``math.exp``."""
    formulas: Formulas = field(default_factory=dict)
    """Elementary functions that are inlined as formulas."""
    parts: frozenset[str] = frozenset()
    """The modules whose functions are parts of templates."""
    modules: Mapping[str, str] = field(default_factory=lambda: MODULES)
    """The modules that `imports` imports, and the names that it gives them."""
    rewrite: Callable[[str], str] | None = None
    """Changes the source text of templates and parts before they are parsed."""
    entry: Callable[[str, str, str], Any] | None = None
    """Makes the entry of the module's name, its source and the function's name; by default, the function."""


class _Scalar(str):
    """An expression over the names of hyperparameters."""


@dataclass(frozen=True)
class Specialised:
    """A kernel's source and its parameters."""

    source: str
    """A module with one function."""
    parameters: tuple[str, ...]
    """The template's that are left, then `scalars`."""
    scalars: Mapping[str, tuple[str, str]]
    """The parameters that come from hyperparameters: the type and the expression of each."""

    def values(self, hyperparameters: Hyperparameters) -> dict[str, Any]:
        """Return the arguments for these hyperparameters: computed in float64, then rounded."""
        names = {**hyperparameters, "inf": inf, "nan": nan}
        return {
            name: getattr(np, real.removeprefix("np."))(_evaluated(text, names))
            for name, (real, text) in self.scalars.items()
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


def split_constants(constants: Mapping[str, Constant]) -> tuple[dict[str, Constant], dict[str, float]]:
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
        The formula for each placeholder that the template calls.
    constants : mapping of str to bool, int or float
        The template's upper-case flags, and those of the formulas' further parameters that choose between two
        forms of one.
    hyperparameters : collection of str
        The names of the formulas' other parameters that no call gives, which become the kernel's.
    target : Target
        The device and dtype.
    """
    function = _parsed(template, target)
    inliner = _Inliner(template, function, formulas, constants, hyperparameters, target)
    function.body = _without_unread(inliner.block(function.body))
    used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    named = (*_parameters(function), *inliner.given)
    scalars = {name: key for key, name in inliner.scalars.items() if name in used}
    parameters = (*(name for name in named if name in used), *scalars)
    function.args = ast.arguments(
        posonlyargs=[], args=list(map(ast.arg, parameters)), kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    function.decorator_list = [_expression(target.decorator)]
    function.returns = None
    literals = [f'{name} = {kind}("{value!r}")' for (kind, value), name in inliner.literals.items()]
    notes = [f"# {name}: {kind}({text})" for name, (kind, text) in scalars.items()]
    body = ast.unparse(ast.fix_missing_locations(function))
    return Specialised("\n".join([target.imports, *literals, "", "", *notes, body, ""]), parameters, scalars)


def load_kernel(
    template: Callable,
    formulas: Formulas,
    constants: Mapping[str, Constant],
    hyperparameters: Collection[str],
    target: Target,
) -> LoadedKernel:
    """Specialise, write the source to the cache if it is not there yet, and import it."""
    # One thread at a time: Python 3.11's `ast.parse` fails where two threads are in it.
    with uninterrupted(), loading:
        specialised = specialise(template, formulas, constants, hyperparameters, target)
        source = specialised.source
        name = source_name(f"{template.__name__}_{target.name}", source)
        write_source(name, source)
        if target.entry is None:
            entry = getattr(load_source(name, source), template.__name__)
        else:
            entry = target.entry(name, source, template.__name__)
        return LoadedKernel(template.__name__, entry, specialised, source_path(name))


# ---------------------------------------------------------------------------------------------------------
# Functions as syntax trees.
# ---------------------------------------------------------------------------------------------------------


def _parsed(function: Callable, target: Target | None = None) -> ast.FunctionDef:
    """Return a function's tree, which the caller may change: parsing again is faster than copying.

    With a target, the function is a template or a part for it.
    """
    if not isinstance(function, FunctionType):
        raise ConfigError(f"a formula must be a plain Python function, not {function!r}")
    try:
        tree = ast.parse(_text(function, target and target.rewrite))
    except (OSError, SyntaxError, IndentationError) as error:
        raise ConfigError(
            f"the source of the formula {function.__name__!r} cannot be read ({error}); "
            "define it with `def` in a file"
        ) from error
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef):
        raise ConfigError(f"the formula {function.__name__!r} must be written with `def`")
    if target is not None:
        node.args.args = [argument for argument in node.args.args if argument.arg != _GIVEN]
    return node


@cache
def _text(function: FunctionType, rewrite: Callable[[str], str] | None) -> str:
    text = textwrap.dedent(inspect.getsource(function))
    return text if rewrite is None else rewrite(text)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    return [
        node for node in body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]


def _split_return(function: ast.FunctionDef) -> tuple[list[ast.stmt], ast.expr | None]:
    """Return the body and the value of its one `return`, at its end; an empty body if others return."""
    body = _without_docstring(function.body)
    returns = sum(isinstance(node, ast.Return) for node in ast.walk(function))
    if returns == 1 and isinstance(body[-1], ast.Return):
        return body[:-1], body[-1].value
    return ([], None) if returns else (body, None)


def _locals(function: ast.FunctionDef) -> set[str]:
    """Return the names of a function's parameters and variables."""
    stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | set(_parameters(function))


def _parameters(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in function.args.args]


def _without_unread(body: list[ast.stmt]) -> list[ast.stmt]:
    """Drop assignments of arrays, numbers and their elements to names that no remaining branch reads.

    Inlining leaves them, and an array that is only renamed would remain a parameter, for which there may be
    no array.
    """
    tree = ast.Module(body, [])
    nodes = list(ast.walk(tree))
    read = Counter(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    # `x += y` reads x, though its context says that it stores.
    read.update(n.target.id for n in nodes if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name))
    renames = [
        (node, {target.id for target in node.targets if isinstance(target, ast.Name)})
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name | ast.Subscript)
        and not any(isinstance(inner, ast.Call) for inner in ast.walk(node.value))
    ]  # fmt: skip
    unread: set[int] = set()
    while dropped := [one for one in renames if one[1] and not any(map(read.get, one[1]))]:
        # What only these read is not read either.
        read.subtract(n.id for node, _ in dropped for n in ast.walk(node.value) if isinstance(n, ast.Name))
        renames = [one for one in renames if one not in dropped]
        unread |= {id(node) for node, _ in dropped}
    return _Without(unread).visit(tree).body if unread else body


class _Without(ast.NodeTransformer):
    """Leaves out the assignments with these ids."""

    def __init__(self, unwanted: set[int]) -> None:
        self._unwanted = unwanted

    def visit_Assign(self, node: ast.Assign) -> ast.Assign | None:
        return None if id(node) in self._unwanted else node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.If | ast.For) and not node.body:
            node.body = [ast.Pass()]
        return node


def _evaluated(text: str, names: Mapping[str, float]) -> Any:
    return eval(text, {"__builtins__": {}}, dict(names))


def _assign(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


# ---------------------------------------------------------------------------------------------------------
# Inlining.
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scope:
    """The function being rewritten, and what names mean in it."""

    function: str
    names: Mapping[str, str]  # its parameters and variables, and their names in the kernel
    namespace: Mapping[str, object]  # its module's names
    constants: Mapping[str, Constant | _Scalar]  # the flags and hyperparameters that it sees
    placeholders: Formulas


class _Inliner(ast.NodeTransformer):
    """Rewrites a template's statements for one kernel.

    A call of a formula or part becomes statements before the one that calls: its arguments are assigned to
    its parameters, its body follows, and its value is assigned to a result variable, which replaces the call.
    The variables of the n-th inlined function end in ``_n``. A template or a part sees all flags and
    placeholders, a formula only the constants that are its parameters.
    """

    def __init__(
        self,
        template: Callable,
        definition: ast.FunctionDef,
        formulas: Formulas,
        constants: Mapping[str, Constant],
        hyperparameters: Collection[str],
        target: Target,
    ) -> None:
        self.literals: dict[tuple[str, float], str] = {}  # names by type and value
        self.scalars: dict[tuple[str, str], str] = {}  # names by type and expression
        self.given: dict[str, None] = {}  # the arguments taken as ``given.name``, in order
        self._values: dict[str, float | _Scalar] = {}  # of both, by name
        self._real = target.real
        self._target = target
        own = {name: name for name in _locals(definition)}
        every = {**constants, **{name: _Scalar(name) for name in hyperparameters}}
        self._template = self._scope = _Scope(template.__name__, own, template.__globals__, every, formulas)
        self._before: list[ast.stmt] = []
        self._inlined = 0

    def block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """Rewrite statements, each after those that compute the formulas it calls."""
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
        node = self.visit(node)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            node.targets = [one for one in node.targets if getattr(one, "id", "") != node.value.id]
            return [node] if node.targets else []  # nothing of ``x = given.x``
        return [node]

    def _is_given(self, node: ast.expr) -> bool:
        """Whether an expression is the `given` of the template or a part."""
        named = isinstance(node, ast.Name) and node.id == _GIVEN
        return named and self._scope.constants is self._template.constants

    # Names and constants.

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if self._is_given(node.value):
            self.given[node.attr] = None
            return ast.Name(node.attr, node.ctx)
        return ast.Attribute(self.visit(node.value), node.attr, node.ctx)

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
        """Return a constant, or the name of a float literal or of a parameter."""
        if isinstance(value, np.number):
            value = value.item()
        if isinstance(value, _Scalar):
            name = self.scalars.setdefault((self._real, str(value)), f"P{len(self.scalars)}")
        elif isinstance(value, float):
            name = self.literals.setdefault((self._real, value), f"C{len(self.literals)}")
        else:
            return ast.Constant(value)  # type: ignore[arg-type]
        self._values[name] = value
        return ast.Name(name, ast.Load())

    # Folding.

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """Take a difference of constants in float64: 1 − β₂ loses five digits in float32."""
        left, right = self.visit(node.left), self.visit(node.right)
        first, second = (self._values.get(getattr(side, "id", "")) for side in (left, right))
        if not isinstance(node.op, ast.Sub) or first is None or second is None:
            return ast.BinOp(left, node.op, right)
        if isinstance(first, float) and isinstance(second, float):
            return self._constant(first - second)
        return self._constant(_Scalar(f"({first} - {second})"))

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
            return ast.Constant(bool(_evaluated(ast.unparse(compared), {})))
        return compared

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        test = self.visit(node.test)
        if isinstance(test, ast.Constant):
            return self.visit(node.body if test.value else node.orelse)
        return ast.IfExp(test, self.visit(node.body), self.visit(node.orelse))

    # Calls.

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if node.keywords:
            raise ConfigError(
                f"the formula {self._scope.function!r} must give values by position, "
                f"not by name: {ast.unparse(node)}"
            )
        arguments = [self.visit(argument) for argument in node.args if not self._is_given(argument)]
        if isinstance(node.func, ast.Name) and node.func.id not in self._scope.names:
            formula = self._formula(node.func.id)
            if formula is not None:
                outer = self._real
                self._real = "np.float64" if node.func.id in _WIDE else outer
                result = self._inline(formula, arguments)
                self._real = outer
                return result
        return ast.Call(self.visit(node.func), arguments, [])

    def _formula(self, name: str) -> Callable | None:
        """Return the function to inline for a call of this name; None for a native or a library's call."""
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
        """Write a call's statements and return its result: a variable, or None of a part without `return`."""
        part = formula.__module__ in self._target.parts
        definition = _parsed(formula, self._target if part else None)
        body, returned = _split_return(definition)
        if returned is None and not (part and body):
            raise ConfigError(f"the formula {definition.name!r} must end with its one `return`")
        self._inlined += 1
        outer, suffix = self._scope, f"_{self._inlined}"
        self._scope = scope = self._scope_of(formula, definition, len(arguments), suffix, part)
        for name, argument in zip(_parameters(definition), arguments, strict=False):
            self._before.append(_assign(scope.names[name], argument))
        for statement in body:
            self._before += self.block([statement])
        value = None if returned is None else self.visit(returned)
        self._scope = outer
        if value is None:
            return ast.Constant(None)
        self._before.append(_assign(f"result{suffix}", value))
        return ast.Name(f"result{suffix}", ast.Load())

    def _scope_of(
        self, formula: Callable, definition: ast.FunctionDef, given: int, suffix: str, part: bool
    ) -> _Scope:
        """Return the scope of a function that is called with `given` arguments.

        A parameter that the call does not give is the constant or the template's variable of the same name.
        """
        parameters, template = _parameters(definition), self._template
        implied = {
            name for name in parameters[given:] if name in template.constants or name in template.names
        }
        if given + len(implied) != len(parameters):
            raise ConfigError(
                f"the formula {definition.name!r} takes {', '.join(parameters)}; {given} values were given"
            )
        constants = {name: template.constants[name] for name in implied & template.constants.keys()}
        names = {name: f"{name}{suffix}" for name in _locals(definition) - implied}
        names |= {name: name for name in implied - constants.keys()}
        namespace = {**formula.__globals__, **inspect.getclosurevars(formula).nonlocals}
        scope = _Scope(definition.name, names, namespace, constants, {})
        if part:
            return replace(scope, constants=template.constants, placeholders=template.placeholders)
        return scope
