"""Compiled loops for the CPU: Numba compiles them once; from then on their machine code is loaded without it.

Numba takes half a second to import and 70 MB, to find in its cache what it once compiled. What a loop was
compiled to is therefore kept as an object file beside its source, with what it needs of others, and LLVM
alone loads it. It is the same machine code: the results are the same bits. An object is loaded only on the
processor, and for the versions, that it was made for, and only whole; in every other case Numba is asked, as
if there were none.

All of this rests on what Numba does not promise. It is therefore done only with the releases that it was
tested with, and only after one small function, made and called in the same way, has returned the right values
in this process.

A compiled function takes its arguments as Numba lays them out: a pointer for its result and one for an error,
then of each number its value, and of each array two pointers to who owns it, its size and its elements' size,
its address, its shape and its strides. The object has a function beside it that takes one pointer, to all of
these in a row: so a call from Python costs the same however many there are.

Order: what lies in the cache, the object file, the loop, the check.
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
# What lies in the cache.
# ---------------------------------------------------------------------------------------------------------

# What each type of number is called by Numba and by LLVM, and how it lies in its eight bytes.
_SCALARS: Mapping[type, tuple[str, str, str]] = {
    int: ("int64", "i64", "q"),
    np.int64: ("int64", "i64", "q"),
    float: ("float64", "double", "d"),
    np.float64: ("float64", "double", "d"),
    np.float32: ("float32", "float", "f4x"),
}


def _signature(values: Sequence[Any]) -> str | None:
    """Return the types by which Numba tells compiled versions of a function apart; None for others."""
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
    """Return what machine code depends on beside its source and its types."""
    with loading:
        import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    settings = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_"))
    return json.dumps([version("numba"), version("llvmlite"), llvm.get_host_cpu_name(), features, settings])


@dataclass(frozen=True)
class _Object:
    """Machine code: the name there of what is called, and the names of what that calls."""

    symbol: str
    needs: tuple[str, ...]
    code: bytes

    @staticmethod
    def path(module: str, signature: str) -> Path | None:
        """Return where that of a module's function for those types lies; None where there is no cache."""
        folder = kernel_folder()
        if folder is None:
            return None
        key = hashlib.sha256(f"{signature}\n{_made_for()}".encode()).hexdigest()[:24]
        return folder / "native" / f"{module}.{key}.o"

    @classmethod
    def read(cls, path: Path) -> _Object | None:
        """Return what a file holds, if it is there and whole.

        One that is damaged is removed, together with what Numba keeps: from that it would have no new one.
        """
        try:
            data = path.read_bytes()
        except OSError:
            return None
        native = cls._parsed(data)
        if native is None:
            with suppress(OSError):
                path.unlink()
            forget_compiled(path.name.partition(".")[0])
        return native

    @classmethod
    def _parsed(cls, data: bytes) -> _Object | None:
        head, _, code = data.partition(b"\n")
        try:
            told = json.loads(head)
            if told["sha256"] != hashlib.sha256(code).hexdigest():
                return None
            return cls(str(told["symbol"]), tuple(map(str, told["needs"])), code)
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, path: Path) -> None:
        """Keep it, as far as the cache can be written to."""
        told = {"symbol": self.symbol, "needs": self.needs, "sha256": hashlib.sha256(self.code).hexdigest()}
        try:
            write_cached(path, json.dumps(told).encode() + b"\n" + self.code)
        except FileError as error:
            warn_not_kept(str(error))


# ---------------------------------------------------------------------------------------------------------
# The object file.
# ---------------------------------------------------------------------------------------------------------

_SYMBOL_TABLE, _SYMBOL_BYTES = 2, 24


def undefined_symbols(code: bytes) -> Iterator[str]:
    """Yield the names that an object file takes from elsewhere.

    Of a 64-bit little-endian ELF file; reference: the ELF-64 Object File Format, version 1.5.

    Raises
    ------
    ValueError
        If it is no such file.
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
# What Numba calls when the last owner of an array's memory lets go: of ours it knows no owner.
_RELEASE = """define void @NRT_MemInfo_call_dtor(ptr %memory) {
    ret void
}"""


def _object_of(compiled: Any, values: Sequence[Any]) -> _Object:
    """Return what Numba compiled for such values, without the function that Python would call it by.

    Raises
    ------
    Exception
        Of Numba's or LLVM's, where a release of theirs has not what is asked of it here.
    """
    import llvmlite.binding as llvm

    library, symbol = compiled.library, compiled.fndesc.llvm_func_name
    module = llvm.parse_bitcode(library._final_module.as_bitcode())
    module.get_function(symbol)  # not there if Numba itself had but the machine code
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
    """Return a function that takes the arguments of another from a row of eight bytes each."""
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
    """Whether LLVM knows a function of this name, which it is told if the C library has it."""
    import llvmlite.binding as llvm

    if llvm.address_of_symbol(name) is not None:
        return True
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    return function is not None


def _address_of(native: _Object) -> int | None:
    """Load an object and return its function's address; None where it needs what is not here."""
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
    """A call of a loop with its arguments; `loop` and `values` say of which and with which."""

    loop: Loop
    values: tuple[Any, ...]


class Loop:
    """A loop that is compiled for the types of its arguments when it first meets them.

    Parameters
    ----------
    module : str
        What its generated module is called.
    source : str
        Of that module.
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
        """Return the call with these arguments; what it calls is compiled, or loaded, when this returns."""
        address = self._address(values)
        if address is None:
            call = Prepared(self.dispatcher, *values)
        else:
            function, row = _bound(address, values)
            call = Prepared(function, ctypes.byref(row))
        call.loop, call.values = self, tuple(values)
        return call

    def repeating(self, values: Sequence[Any], only_cached: bool) -> Callable[[int], object] | None:
        """Return the function of its first argument, a number, with the others bound to these.

        None where it would have to be compiled and must not be.
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
        """Return where the machine code for such arguments is; None where Numba must be asked for it."""
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
        """Return the address of what was compiled for these types, now or at another time."""
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
        """Numba's function, for which Numba is imported.

        Raises
        ------
        ConfigError
            If Numba is told not to compile: what is written in its types has other results in Python's.
        """
        with uninterrupted(), loading:
            if self._dispatcher is None:
                function = getattr(load_source(self.module, self._source), self.function)
                if not hasattr(function, "compile"):
                    raise ConfigError("unset NUMBA_DISABLE_JIT: nnkit's kernels have to be compiled")
                self._dispatcher = function
        return self._dispatcher

    def _compile(self, values: Sequence[Any], signature: str | None) -> None:
        """Let Numba compile it, or load what it compiled, and keep the machine code where it can be had."""
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
        """Return what Numba compiles for the types of such arguments."""
        dispatcher = self.dispatcher
        from numba import typeof

        types = tuple(map(typeof, values))
        dispatcher.compile(types)
        return dispatcher.overloads[types]


def _bound(address: int, values: Sequence[Any]) -> tuple[Callable[[Any], None], ctypes.Array]:
    """Return a compiled function and the row of its arguments, which keeps the arrays alive."""
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
    # A place for its result, which is none, and for an error, of which none comes.
    unread = ctypes.create_string_buffer(16)
    struct.pack_into("<QQ", row, 0, ctypes.addressof(unread), ctypes.addressof(unread) + 8)
    row.owners = (unread, tuple(values))  # type: ignore[attr-defined]
    return ctypes.CFUNCTYPE(None)(address), row


# ---------------------------------------------------------------------------------------------------------
# The check.
# ---------------------------------------------------------------------------------------------------------

# Numba's releases with which tests/kernels/test_native.py was seen to pass. With 0.61, whose LLVM has typed
# pointers, it does not.
_TESTED = ("0.62", "0.63", "0.64", "0.65", "0.66", "0.67", "0.68")

# It takes arrays of each layout and numbers of each kind, and calls the C library.
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
    """Whether machine code can be taken from Numba, loaded and called; tried out once for a cache.

    Parameters
    ----------
    folder : Path
        Where the objects lie, also that of the function which is tried.
    may_compile : bool
        Whether to compile it where it is missing. Without it there are no others to be loaded.
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
    """Return whether the function computes what it should; None where it would have to be compiled."""
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
    """Return arguments, the last one part of an array, and what that array then holds; nothing is rounded."""
    matrix = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::2]
    exponents = np.arange(3, dtype=np.int32)
    exponents.flags.writeable = False
    turned = np.arange(6, dtype=np.uint8).reshape(3, 2).T
    whole = np.zeros((4, 5))
    expected = whole.copy()
    expected[1:3, 1:4] = matrix * 2.0**exponents * 0.25 + turned * 3
    return [matrix, exponents, turned, np.float32(0.25), 2.0, 3, whole[1:3, 1:4]], expected
