"""What the catalogue declares of each kernel, against the sources of its host and its CUDA template."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import FunctionType, ModuleType

import pytest

from nnkit.kernels import common_parts, host, host_parts, layout
from nnkit.kernels.catalogue import CATALOGUE, Argument, holds
from nnkit.kernels.specialise import Target, specialise, split_constants
from nnkit.testing.flags import covering_sample, flag_sets, formulas_for

NAMES = sorted(CATALOGUE)
DEVICES = ("host", pytest.param("cuda", marks=pytest.mark.extra("numba_cuda")))
# What the CUDA kernels do in several launches, one after the other.
PHASES = {
    "unique_rows": (
        *("unique_rows", "count_tokens", "start_rows", "list_tokens"),
        *("count_digits", "sort_digit", "count_runs", "find_runs"),
    ),
    "embed_gradient": ("embed_gradient", "add_partials"),
    "periodic_gradient": ("periodic_gradient", "periodic_lines"),
    "layer_norm_gradient": ("layer_norm_sums", "layer_norm_gradient"),
    "interpolate_gradient": ("sum_places", "interpolate_gradient"),
}
# What `cuda_geometry` decides, so that every branch over several blocks is there.
GEOMETRY = {
    **dict.fromkeys(("WIDE", "WHOLE", "ONE_PASS"), False),
    **dict.fromkeys(("SPLIT", "MANY"), True),
    **dict.fromkeys(("BLOCK_X", "BLOCK_Y", "THREADS", "ITEMS", "SPAN"), 8),
    **dict.fromkeys(("X_LEVELS", "Y_LEVELS", "LEVELS", "GROUP_LEVELS"), 3),
    **dict.fromkeys(("FEATURE_LEVELS", "SPARSE_LEVELS", "ROW_LEVELS"), 2),
}
# What a CUDA backend allocates for a kernel, and the numbers of each launch.
OWN_OF_CUDA = frozenset(
    [
        *("partials", "block_sums", "group_sums", "tickets"),
        *("weight_partials", "bias_partials", "weight_tickets", "bias_tickets"),
        *("row_counts", "batch_starts", "token_count", "token_owners", "keys", "tokens"),
        *("digit_counts", "run_counts", "passes", "sort_pass"),
    ]
)
CASTS = ("real", "double", "u8", "exp", "log", "sqrt")


def sets_of(name: str) -> list[dict[str, bool | int]]:
    """Return every sensible combination of flags; of many, so few that any three flags have met in all."""
    sets = flag_sets(name)
    return sets if len(sets) <= 64 else covering_sample(sets, 3)


def templates_of(device: str) -> tuple[Mapping[str, Callable], Target, dict[str, bool | int]]:
    if device == "host":
        return host.TEMPLATES, host._target("", "float32"), {}
    from nnkit.kernels import cuda

    return cuda.TEMPLATES, cuda._target("float32"), GEOMETRY


@cache
def kernels_on(name: str, device: str) -> tuple[str, ...]:
    return tuple(
        each
        for each in (PHASES.get(name, (name,)) if device == "cuda" else (name,))
        if each in templates_of(device)[0]
    )


# ---------------------------------------------------------------------------------------------------------
# What a specialised function reads and writes.
# ---------------------------------------------------------------------------------------------------------


class Uses:
    """Which parameters a function reads from and stores to, through whatever other names they have.

    Parameters
    ----------
    function : ast.FunctionDef
        Everything inlined: the arrays of a name are those of all values that it is ever assigned.
    """

    STORES = ("store1", "store4")

    def __init__(self, function: ast.FunctionDef) -> None:
        self.parameters = {argument.arg for argument in function.args.args}
        self._arrays: dict[str, set[str]] = {name: {name} for name in self.parameters}
        self.read: set[str] = set()
        self.written: set[str] = set()
        size = -1
        while size != (size := sum(map(len, self._arrays.values()))):  # until no name gains an array
            for node in ast.walk(function):
                if isinstance(node, ast.Assign):
                    for target in node.targets:
                        if isinstance(target, ast.Name):
                            self._arrays.setdefault(target.id, set()).update(self.arrays_of(node.value))
        for statement in function.body:
            self._statement(statement)

    def arrays_of(self, node: ast.AST) -> set[str]:
        """Return the parameters that an expression may be a view of, or an element."""
        if isinstance(node, ast.Name):
            return self._arrays.get(node.id, set())
        if isinstance(node, ast.Subscript):
            return self.arrays_of(node.value)
        if isinstance(node, ast.IfExp):
            return self.arrays_of(node.body) | self.arrays_of(node.orelse)
        return set()

    def _statement(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, ast.AugAssign):
            self._value(node.value)
            self._value(node.target)
            if isinstance(node.target, ast.Subscript):
                self.written |= self.arrays_of(node.target)
        elif isinstance(node, ast.If | ast.For):
            self._value(node.test if isinstance(node, ast.If) else node.iter)
            for statement in (*node.body, *node.orelse):
                self._statement(statement)
        elif isinstance(node, ast.Expr):
            self._value(node.value)
        else:
            assert isinstance(node, ast.Pass), ast.dump(node)

    def _assign(self, target: ast.AST, value: ast.AST) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for each, one in zip(target.elts, value.elts, strict=True):
                self._assign(each, one)
        elif isinstance(target, ast.Tuple):
            self._value(value)
            for each in target.elts:
                self._store(each)
        elif isinstance(target, ast.Subscript):
            self._value(value)
            self._store(target)
        elif self.arrays_of(value):
            self._indices(value)  # another name: how that is used decides
        else:
            self._value(value)

    def _store(self, target: ast.AST) -> None:
        if isinstance(target, ast.Subscript):
            self._indices(target)
            self.written |= self.arrays_of(target)

    def _indices(self, node: ast.AST) -> None:
        """Read what chooses among the elements, but not these."""
        if isinstance(node, ast.Subscript):
            self._value(node.slice)
            self._indices(node.value)
        elif isinstance(node, ast.IfExp):
            self._value(node.test)
            self._indices(node.body)
            self._indices(node.orelse)

    def _value(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name | ast.Subscript):
            self._indices(node)
            self.read |= self.arrays_of(node)
        elif isinstance(node, ast.Attribute) and node.attr in ("shape", "size"):
            self._indices(node.value)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            first, rest = node.args[:1], node.args[1:]
            if called in self.STORES or called == "cuda.atomic.add":
                self._indices(first[0])
                self.written |= self.arrays_of(first[0])
            else:
                rest = node.args
            for argument in rest:
                self._value(argument)
        else:
            for child in ast.iter_child_nodes(node):
                self._value(child)


def specialised(name: str, device: str, flags: Mapping[str, bool | int], **others: bool) -> ast.FunctionDef:
    templates, target, geometry = templates_of(device)
    formulas, hyperparameters = formulas_for(name, flags)
    folded, passed = split_constants({**flags, **hyperparameters, **geometry, **others, "TINY": 1})
    made = specialise(templates[name], formulas, folded, passed, target)
    (function,) = (node for node in ast.parse(made.source).body if isinstance(node, ast.FunctionDef))
    # What stands for hyperparameters is not the catalogue's.
    function.args.args = [one for one in function.args.args if one.arg not in made.scalars]
    return function


def declared(name: str, device: str, flags: Mapping[str, bool | int]) -> dict[str, Argument]:
    found = [one for one in CATALOGUE[name].arguments if one.taken(flags, device)]
    assert len({one.name for one in found}) == len(found), f"{name}: an argument is declared twice"
    return {one.name: one for one in found}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_takes_reads_and_writes_what_is_declared(name: str, device: str) -> None:
    for flags in sets_of(name) if kernels_on(name, device) else []:
        uses = [Uses(specialised(one, device, flags)) for one in kernels_on(name, device)]
        taken, read, written = (
            set().union(*(getattr(one, field) for one in uses)) for field in ("parameters", "read", "written")
        )
        if device == "cuda":
            taken, read, written = (names - OWN_OF_CUDA for names in (taken, read, written))
        arguments = declared(name, device, flags)
        shapes = {key for key, one in arguments.items() if one.use == "shape"}
        assert taken | shapes == set(arguments), f"{flags}"
        for key in taken:
            found = (key in read, key in written)
            allowed = {
                "in": [(True, False)],
                "out": [(False, True), (True, True)],
                "inout": [(True, True)],
                "small": [(True, False), (False, True), (True, True)],
                "scratch": [(False, True), (True, True), (True, False)],
                "shape": [(False, False)],
                "number": [(True, False)],
            }[arguments[key].use]
            assert found in allowed, f"{key} ({arguments[key].use}) is read, written: {found}; {flags}"


@pytest.mark.extra("numba_cuda")
@pytest.mark.parametrize("name", NAMES)
def test_what_a_cuda_kernel_takes_in_fours_is_declared(name: str) -> None:
    found: set[str] = set()
    for flags in sets_of(name):
        for each in kernels_on(name, "cuda"):
            function = specialised(each, "cuda", flags, WIDE=True, WHOLE=True)
            uses = Uses(function)
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("load4", "store4"):
                    found |= uses.arrays_of(node.args[0])
    expected = {one.name for one in CATALOGUE[name].arguments if one.fours and kernels_on(name, "cuda")}
    assert found - OWN_OF_CUDA == expected


# ---------------------------------------------------------------------------------------------------------
# Flags, placeholders, names.
# ---------------------------------------------------------------------------------------------------------


def functions_of(template: Callable, modules: tuple[str, ...]) -> Iterator[FunctionType]:
    """Yield a template and every function of these modules that it calls, and what that calls."""
    waiting, known = [template], {template}
    while waiting:
        function = waiting.pop()
        yield function
        called = (function.__globals__.get(name) for name in function.__code__.co_names)
        parts = {one for one in called if isinstance(one, FunctionType) and one.__module__ in modules}
        waiting += parts - known
        known |= parts


def names_in(name: str, device: str) -> set[str]:
    """Return the global names that a kernel and its parts mention."""
    templates, target, _ = templates_of(device)
    return {
        mentioned
        for kernel in kernels_on(name, device)
        for function in functions_of(templates[kernel], tuple(target.parts | {common_parts.__name__}))
        for mentioned in function.__code__.co_names
    }


def own_names(module: ModuleType, kind: type) -> set[str]:
    """Return the names that a module defines itself."""
    assigned = {name for name, value in vars(module).items() if isinstance(value, kind)}
    return {name for name in assigned if not hasattr(layout, name)}


FLAGS = {name for module in (common_parts, host_parts) for name in own_names(module, int) if name.isupper()}
PLACEHOLDERS = {
    name
    for name, value in vars(common_parts).items()
    if isinstance(value, FunctionType)
    and value.__module__ == common_parts.__name__
    and not value.__code__.co_names  # a body that is its docstring
    and name not in CASTS
    and value.__code__.co_consts[-1] is None
}


def test_the_names_of_flags_and_placeholders_are_found() -> None:
    assert {"BIAS", "SLOTS", "FOLDED", "INDEXED"} <= FLAGS
    assert "BATCH" not in FLAGS
    declared_formulas = {name for one in CATALOGUE.values() for name in one.formulas}
    assert declared_formulas == PLACEHOLDERS
    assert {flag for one in CATALOGUE.values() for flag in one.flags} == FLAGS


@pytest.mark.extra("numba_cuda")
@pytest.mark.parametrize("name", NAMES)
def test_flags_and_placeholders_in_the_templates_are_declared(name: str) -> None:
    on_host, on_cuda = names_in(name, "host"), names_in(name, "cuda")
    declaration = CATALOGUE[name]
    # Flags of a part that two kernels share: no shards part a table, and the arena has no unseen rows.
    never = {"update_rows": {"FOLDED"}, "update": {"DECAYS_UNSEEN"}}
    assert set(declaration.flags) == (on_host | on_cuda) & FLAGS - never.get(name, set())
    assert set(declaration.formulas) == on_host & PLACEHOLDERS
    if on_cuda:
        assert set(declaration.formulas) == on_cuda & PLACEHOLDERS
        assert set(declaration.host_flags) == (on_host - on_cuda) & set(declaration.flags)


def test_conditions_are_over_declared_flags() -> None:
    for declaration in CATALOGUE.values():
        for argument in declaration.arguments:
            names = {
                node.id for node in ast.walk(ast.parse(argument.when or "0")) if isinstance(node, ast.Name)
            }
            assert names <= set(declaration.flags), f"{declaration.name}: {argument.name}"


@pytest.mark.extra("numba_cuda")
def test_every_template_is_declared() -> None:
    from nnkit.kernels import cuda

    assert set(host.TEMPLATES) == set(CATALOGUE)
    phases = {phase for name, every in PHASES.items() if name in CATALOGUE for phase in every}
    everywhere = {name for name, one in CATALOGUE.items() if not one.device}
    assert set(cuda.TEMPLATES) == everywhere | phases


def test_a_condition_holds_where_its_flags_say_so() -> None:
    assert holds("", {})
    assert holds("not A and N > 1", {"N": 2})
    assert not holds("A", {"A": False})
    argument = Argument("x", "in", when="A", device="host")
    assert argument.taken({"A": True})
    assert argument.taken({"A": True}, "host")
    assert not argument.taken({"A": True}, "cuda")
    assert not argument.taken({}, "host")
