"""Compiled loops for the CPU: Numba compiles them once; later processes load the machine code without Numba.

Importing Numba to load from its cache takes half a second and 70 MB. So a loop's machine code is also kept as
an object file beside its source, with the names of the symbols that it needs, and LLVM alone loads it: the
same code, and the same bits. An object is loaded only whole, on the processor and for the versions that it
was made for; otherwise Numba compiles, or loads from its own cache.

This relies on internals of Numba. So it is done only with the releases that it was tested with, and only
after a small function, made and called in the same way, has returned the right values in this process.

A compiled function takes its arguments in Numba's layout: a pointer for its result and one for an error, then
each number's value, and of each array two pointers to its owner, its size, its item size, its address, its
shape and its strides. The object has a second function, which takes one pointer to all of these in a row: so
a call from Python costs the same for any number of arguments.

Order: the cache, the object file, the loop, the check.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nnkit.cache import write_cached
from nnkit.errors import ConfigError, FileError
from nnkit.kernels.locks import loading, uninterrupted
from nnkit.kernels.modules import (
    forget_compiled,
    is_cached,
    kernel_folder,
    load_source,
    source_name,
    warn_not_kept,
)
from nnkit.working import working

__all__ = ["Loop", "Prepared", "undefined_symbols"]

logger = logging.getLogger("nnkit")

# ---------------------------------------------------------------------------------------------------------
# The cache.
# ---------------------------------------------------------------------------------------------------------

# The names of each type of number in Numba and in LLVM, and its layout in eight bytes, as for `struct`.
_SCALARS: Mapping[type, tuple[str, str, str]] = {
    int: ("int64", "i64", "q"),
    np.int64: ("int64", "i64", "q"),
    float: ("float64", "double", "d"),
    np.float64: ("float64", "double", "d"),
    np.float32: ("float32", "float", "f4x"),
}


def _signature(values: Sequence[Any]) -> str | None:
    """Return the types for which Numba compiles a version of its own; None if there is another type."""
    kinds = []
    for value in values:
        if isinstance(value, np.ndarray):
            flags = value.flags
            if not flags.aligned or not value.dtype.isnative or value.dtype.kind not in "biuf":
                return None
            layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
            kinds.append(f"{value.dtype.name}{value.ndim}{layout}{'' if flags.writeable else ' read-only'}")
        elif type(value) in _SCALARS:
            kinds.append(_SCALARS[type(value)][0])
        else:
            return None
    return " ".join(kinds)


@cache
def _made_for() -> str:
    """Return the versions, the processor and the settings that machine code depends on."""
    with loading:
        import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    settings = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_"))
    return json.dumps([version("numba"), version("llvmlite"), llvm.get_host_cpu_name(), features, settings])


@dataclass(frozen=True)
class _Object:
    """Machine code: the name of its function, and the names of the functions that it calls."""

    symbol: str
    needs: tuple[str, ...]
    code: bytes

    @staticmethod
    def path(module: str, signature: str) -> Path | None:
        """Return the file for a module's function and these types; None where there is no cache."""
        folder = kernel_folder()
        if folder is None:
            return None
        key = hashlib.sha256(f"{signature}\n{_made_for()}".encode()).hexdigest()[:24]
        return folder / "native" / f"{module}.{key}.o"

    @classmethod
    def read(cls, path: Path) -> _Object | None:
        """Return a file's object, if it is there and whole.

        A damaged one is removed together with Numba's file: an object can only be made of a new compilation.
        """
        try:
            data = path.read_bytes()
        except OSError:
            return None
        head, _, code = data.partition(b"\n")
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            header = json.loads(head)
            if header["sha256"] == hashlib.sha256(code).hexdigest():
                return cls(str(header["symbol"]), tuple(map(str, header["needs"])), code)
        with suppress(OSError):
            path.unlink()
        forget_compiled(path.name.partition(".")[0])
        return None

    def write(self, path: Path) -> None:
        """Keep it, if the cache can be written to."""
        header = {"symbol": self.symbol, "needs": self.needs, "sha256": hashlib.sha256(self.code).hexdigest()}
        try:
            write_cached(path, json.dumps(header).encode() + b"\n" + self.code)
        except FileError as error:
            warn_not_kept(str(error))


# ---------------------------------------------------------------------------------------------------------
# The object file.
# ---------------------------------------------------------------------------------------------------------

_SYMBOL_TABLE, _SYMBOL_BYTES = 2, 24


def undefined_symbols(code: bytes) -> Iterator[str]:
    """Yield the undefined symbols of a 64-bit little-endian ELF file; raise a ValueError for any other file.

    Reference: the ELF-64 Object File Format, version 1.5.
    """
    if code[:6] != b"\x7fELF\x02\x01":
        raise ValueError("this is no 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, table + i * size) for i in range(count)]
    for _, kind, _, _, first, length, strings, *_ in sections:
        if kind != _SYMBOL_TABLE:
            continue
        for place in range(first, first + length, _SYMBOL_BYTES):
            name, _, _, section = struct.unpack_from("<IBBH", code, place)
            if name and section == 0:
                start = sections[strings][4] + name
                yield code[start : code.index(b"\0", start)].decode()


_CALLER = "called_with_a_row"
# Numba's destructor of an array's memory: the arrays here have no owner that Numba knows.
_RELEASE = """define void @NRT_MemInfo_call_dtor(ptr %memory) {
    ret void
}"""


def _object_of(compiled: Any, values: Sequence[Any]) -> _Object:
    """Return what Numba compiled for such values, without its wrapper for Python.

    Raises an error of Numba's or LLVM's where a release lacks an internal that is used here.
    """
    import llvmlite.binding as llvm

    library, symbol = compiled.library, compiled.fndesc.llvm_func_name
    module = llvm.parse_bitcode(library._final_module.as_bitcode())
    module.get_function(symbol)  # an error if Numba itself only had the machine code
    module.link_in(llvm.parse_assembly(_RELEASE))
    module.link_in(llvm.parse_assembly(_caller_of(symbol, values)))
    for function in module.functions:
        if not function.is_declaration and function.name != _CALLER:
            function.linkage = "internal"
    machine = library._codegen._tm
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    code = machine.emit_object(module)
    return _Object(_CALLER, tuple(undefined_symbols(code)), code)


def _caller_of(symbol: str, values: Sequence[Any]) -> str:
    """Return, in LLVM's language, a function that calls another with arguments from a row of 8 bytes each."""
    kinds = ["ptr", "ptr"]
    for value in values:
        if isinstance(value, np.ndarray):
            kinds += ["ptr", "ptr", "i64", "i64", "ptr", *["i64"] * (2 * value.ndim)]
        else:
            kinds.append(_SCALARS[type(value)][1])
    lines = [f'declare i32 @"{symbol}"({", ".join(kinds)})', f"define void @{_CALLER}(ptr %row) {{"]
    for i, kind in enumerate(kinds):
        lines += [
            f"%place{i} = getelementptr i64, ptr %row, i64 {i}",
            f"%value{i} = load {kind}, ptr %place{i}",
        ]
    given = ", ".join(f"{kind} %value{i}" for i, kind in enumerate(kinds))
    lines += [f'%status = call i32 @"{symbol}"({given})', "ret void", "}"]
    return "\n".join(lines)


def _is_known(name: str) -> bool:
    """Whether LLVM knows a function of this name, if need be from the C library."""
    import llvmlite.binding as llvm

    if llvm.address_of_symbol(name) is not None:
        return True
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    return function is not None


def _address_of(native: _Object) -> int | None:
    """Load an object and return its function's address; None if a symbol that it needs is missing."""
    with loading:
        import llvmlite.binding as llvm

        # LLVM ends the process over a name that it does not find.
        if not all(map(_is_known, native.needs)):
            return None
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine()
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        engine.add_object_file(llvm.ObjectFileRef.from_data(native.code))
        engine.finalize_object()
        address = int(engine.get_function_address(native.symbol)) or None
        # The code stays as long as the process, at whose end a thread may still be in it.
        engine.detach()
        return address


# ---------------------------------------------------------------------------------------------------------
# The loop.
# ---------------------------------------------------------------------------------------------------------


class Prepared(partial):
    """A call of a loop with its arguments, kept as `loop` and `values`."""

    loop: Loop
    values: tuple[Any, ...]


class Loop:
    """A loop that is compiled at its first call with each set of argument types.

    Parameters
    ----------
    module, source : str
        The name of its generated module, and its source.
    function : str
        The loop's name there.
    """

    def __init__(self, module: str, source: str, function: str) -> None:
        self.module = module
        self.function = function
        self._source = source
        self._native: dict[str, int] = {}
        self._dispatcher: Any = None

    def __call__(self, *values: Any) -> None:
        """Run it now."""
        self.prepared(values)()

    def prepared(self, values: Sequence[Any]) -> Prepared:
        """Return the call with these arguments, compiled or loaded."""
        address = self._address(values)
        if address is None:
            call = Prepared(self.dispatcher, *values)
        else:
            function, row = _bound(address, values)
            call = Prepared(function, ctypes.byref(row))
        call.loop, call.values = self, tuple(values)
        return call

    def repeating(self, values: Sequence[Any], only_cached: bool) -> Callable[[int], object] | None:
        """Return the function of its first argument, an integer, with the others bound to these.

        None if it is not in the cache and `only_cached`.
        """
        address = self._address((0, *values), only_cached)
        if address is not None:
            function, row = _bound(address, (0, *values))
            first, place = ctypes.c_int64.from_buffer(row, 16), ctypes.byref(row)

            def run(count: int) -> None:
                first.value = count
                function(place)

            return run
        if only_cached and not is_cached(self.module):
            return None
        dispatcher = self.dispatcher
        return lambda count: dispatcher(count, *values)

    def _address(self, values: Sequence[Any], only_cached: bool = False) -> int | None:
        """Return the address of the machine code for such arguments; None if only Numba can call it."""
        signature = _signature(values)
        if signature in self._native:
            return self._native[signature]
        with uninterrupted():
            address = None if signature is None else self._loaded(signature)
            if address is None and not (only_cached and not is_cached(self.module)):
                with working("compiling kernels", unit="done") as work:
                    self._compile(values, signature)
                    work.advance()
        return address

    def _loaded(self, signature: str) -> int | None:
        """Return the address of the code in the cache for these types."""
        if signature not in self._native:
            path = _Object.path(self.module, signature)
            native = _Object.read(path) if path is not None and _can_be_called(path.parent) else None
            address = None if native is None else _address_of(native)
            if address is None:
                return None
            self._native[signature] = address
        return self._native[signature]

    @property
    def dispatcher(self) -> Any:
        """Numba's function; imports Numba.

        Raises
        ------
        ConfigError
            If NUMBA_DISABLE_JIT is set: plain Python would compute in other types.
        """
        with uninterrupted(), loading:
            if self._dispatcher is None:
                function = getattr(load_source(self.module, self._source), self.function)
                if not hasattr(function, "compile"):
                    raise ConfigError("unset NUMBA_DISABLE_JIT: nnkit's kernels have to be compiled")
                self._dispatcher = function
        return self._dispatcher

    def _compile(self, values: Sequence[Any], signature: str | None) -> None:
        """Let Numba compile it, or load it from its cache, and keep the machine code if possible."""
        compiled = self.compiled_for(values)
        path = None if signature is None else _Object.path(self.module, signature)
        if path is None or not _can_be_called(path.parent, may_compile=True):
            return
        try:
            native = _object_of(compiled, values)
        except Exception as error:  # each release fails in its own words
            logger.debug("the machine code of %s could not be had: %s", self.module, error)
        else:
            native.write(path)

    def compiled_for(self, values: Sequence[Any]) -> Any:
        """Return Numba's compilation for the types of such arguments."""
        dispatcher = self.dispatcher
        from numba import typeof

        types = tuple(map(typeof, values))
        dispatcher.compile(types)
        return dispatcher.overloads[types]


def _bound(address: int, values: Sequence[Any]) -> tuple[Callable[[Any], None], ctypes.Array]:
    """Return a compiled function and the row of its arguments; the row keeps the arrays alive."""
    form, laid_out = ["<QQ"], [0, 0]
    for value in values:
        if isinstance(value, np.ndarray):
            numbers = (value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides)
            form.append(f"QQ{len(numbers)}q")
            laid_out += [0, 0, *numbers]
        else:
            form.append(_SCALARS[type(value)][2])
            laid_out.append(value)
    row = ctypes.create_string_buffer(struct.pack("".join(form), *laid_out))
    # For a result and an error, neither of which comes.
    unread = ctypes.create_string_buffer(16)
    struct.pack_into("<QQ", row, 0, ctypes.addressof(unread), ctypes.addressof(unread) + 8)
    row.owners = (unread, tuple(values))  # type: ignore[attr-defined]
    return ctypes.CFUNCTYPE(None)(address), row


# ---------------------------------------------------------------------------------------------------------
# The check.
# ---------------------------------------------------------------------------------------------------------

# Numba's releases with which tests/kernels/test_native.py passes. With 0.61, whose LLVM has typed pointers,
# it does not.
_TESTED = ("0.62", "0.63", "0.64", "0.65", "0.66", "0.67", "0.68")

# With arrays of each layout, numbers of each kind, and a call of the C library.
_CHECK = """import math

from numba import njit


@njit(error_model="numpy", nogil=True)
def check(matrix, exponents, turned, single, double, whole, out):
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            power = math.pow(double, exponents[j])
            out[i, j] = matrix[i, j] * power * single + turned[i, j] * whole
"""

_checked: dict[Path, bool] = {}


def _can_be_called(folder: Path, may_compile: bool = False) -> bool:
    """Whether machine code can be taken from Numba, loaded and called: tried once for each folder of objects.

    Without `may_compile`, False if the function to try is not there: then no other object is, either.
    """
    with loading:
        if folder not in _checked:
            loop = Loop(source_name("check", _CHECK), _CHECK, "check")
            try:
                right = _check(loop, may_compile)
            except Exception as error:  # each release fails in its own words
                logger.debug("machine code cannot be loaded without Numba: %s", error)
                right = False
            if right is None:
                return False
            _checked[folder] = right
        return _checked[folder]


def _check(loop: Loop, may_compile: bool) -> bool | None:
    """Return whether the function is right; None if it is not compiled and must not be."""
    release = ".".join(version("numba").split(".")[:2])
    if release not in _TESTED:
        logger.debug("Numba %s is none of the releases %s", release, ", ".join(_TESTED))
        return False
    values, expected = _check_values()
    path = _Object.path(loop.module, str(_signature(values)))
    assert path is not None
    native = _Object.read(path)
    if native is None:
        if not may_compile:
            return None
        forget_compiled(loop.module)  # of what is loaded from there, Numba has no more than the machine code
        native = _object_of(loop.compiled_for(values), values)
        native.write(path)
    address = _address_of(native)
    if address is None:
        return False
    function, row = _bound(address, values)
    function(ctypes.byref(row))
    return bool((values[-1].base == expected).all())


def _check_values() -> tuple[list[Any], np.ndarray]:
    """Return arguments, the last one a view, and the result in its base; nothing is rounded."""
    matrix = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::2]
    exponents = np.arange(3, dtype=np.int32)
    exponents.flags.writeable = False
    turned = np.arange(6, dtype=np.uint8).reshape(3, 2).T
    whole = np.zeros((4, 5))
    expected = whole.copy()
    expected[1:3, 1:4] = matrix * 2.0**exponents * 0.25 + turned * 3
    return [matrix, exponents, turned, np.float32(0.25), 2.0, 3, whole[1:3, 1:4]], expected
