"""The LLVM IR that numba-cuda makes of a kernel, as code for the CPU.

It is written for NVVM, with typed pointers, special registers, barriers and inline assembly. Pointers lose
their types, which LLVM no longer knows, and the rest becomes calls of functions in `threads.c`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding as llvm

__all__ = ["Executable", "executable"]

_CALLS = {
    **{
        f"llvm.nvvm.read.ptx.sreg.{register}.{axis}": f"cu_{register}_{axis}"
        for register in ("tid", "ctaid", "ntid", "nctaid")
        for axis in "xyz"
    },
    "llvm.nvvm.barrier0": "cu_barrier",
    "llvm.nvvm.membar.gl": "cu_fence",
}
# The conversions of `nnkit.kernels.wide`, with their types.
_ASSEMBLY = {
    "cvt.f32.f16 $0, $1;": ("cu_f32_of_f16", "float", "i16"),
    "cvt.rn.f16.f32 $0, $1;": ("cu_f16_of_f32", "i16", "float"),
    "mov.b32 $0, {0, $1};": ("cu_f32_of_bf16", "float", "i16"),
    "cvt.rn.bf16.f32 $0, $1;": ("cu_bf16_of_f32", "i16", "float"),
}
# A pointer to a number, to a pointer, or to an aggregate in which no typed pointer is left.
_POINTER = re.compile(
    r"(?:\b(?:i\d+|float|double|half|ptr)|\{[^{}*]*\}|\[[^\[\]*]*\]|<[^<>*]*>)( addrspace\(\d+\))?\*"
)
_NAME = r'@"?([\w.$]+)"?'


@dataclass(frozen=True)
class Executable:
    """A kernel as a function of the addresses of its arguments.

    Parameters
    ----------
    address : int
        Where it begins.
    arguments : int
        How many it takes.
    shared : tuple of (int, int)
        The address and the size in bytes of each array in shared memory.
    engine : object
        What owns the code.
    """

    address: int
    arguments: int
    shared: tuple[tuple[int, int], ...]
    engine: Any


def executable(ir: str, name: str) -> Executable:
    """Compile the IR of a module with the kernel of that name.

    Raises
    ------
    AssertionError
        If it calls something that `threads.c` does not have.
    """
    shared = re.findall(rf"^{_NAME} = addrspace\(3\) global (.+?) undef, align", ir, re.M)
    types = _parameter_types(ir, name)
    text = _for_the_cpu(ir) + _entry(name, [_opaque(kind) for kind in types])
    module = llvm.parse_assembly(text)
    module.verify()
    missing = [f.name for f in module.functions if f.is_declaration and not _is_known(f.name)]
    assert not missing, f"the kernel calls {', '.join(missing)}"
    machine = _machine()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
    builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    areas = [(engine.get_global_value_address(area), _size(kind, engine)) for area, kind in shared]
    return Executable(engine.get_function_address("entry"), len(types), tuple(areas), engine)


def _machine() -> llvm.TargetMachine:
    _initialized()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), opt=1, jit=True)


@cache
def _initialized() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _is_known(name: str) -> bool:
    general = name.startswith("llvm.") and not name.startswith("llvm.nvvm.")
    return general or llvm.address_of_symbol(name) is not None


def _for_the_cpu(ir: str) -> str:
    text = re.sub(r"^target (triple|datalayout) = .*$", "", ir, flags=re.M)
    text = re.sub(r"^!.*$|, !\w+ !\d+", "", text, flags=re.M)  # annotations for NVVM, hints
    text = re.sub(r'^@"llvm.used" = .*$', "", text, flags=re.M)
    for intrinsic, function in _CALLS.items():
        text = text.replace(f'@"{intrinsic}"', f'@"{function}"')
    # A barrier stays the one place that it is in the kernel.
    text = text.replace('@"cu_barrier"()\n', '@"cu_barrier"() convergent noduplicate\n')
    used = set()

    def call(match: re.Match[str]) -> str:
        function = _ASSEMBLY[match[1]]
        used.add(function)
        return f'@"{function[0]}"'

    text = re.sub(r'\basm\s+(?:sideeffect\s+)?"([^"]*)", *"[^"]*"', call, text)
    assert not re.search(r"\basm\b", text), "inline assembly, at which LLVM ends the process"
    declared = [f"declare {result} @{function}({argument})" for function, result, argument in used]
    return "\n".join([_opaque(text), *declared, ""])


def _opaque(text: str) -> str:
    """Return IR whose pointers have no types."""
    count = 1
    while count:
        text, count = _POINTER.subn(lambda match: "ptr" + (match[1] or ""), text)
    return text


def _parameter_types(ir: str, name: str) -> list[str]:
    found = re.search(rf'^define void @"?{re.escape(name)}"?\((.*)\)', ir, re.M)
    assert found is not None, name
    return re.findall(r'([^,]+?) %"[^"]*"(?:, |$)', found[1])


def _entry(name: str, types: list[str]) -> str:
    """Return a function that loads a kernel's arguments from their addresses and calls it."""
    lines = ["define void @entry(ptr %values) {"]
    for i, kind in enumerate(types):
        lines += [
            f"%place{i} = getelementptr ptr, ptr %values, i64 {i}",
            f"%address{i} = load ptr, ptr %place{i}",
            f"%value{i} = load {kind}, ptr %address{i}",
        ]
    arguments = ", ".join(f"{kind} %value{i}" for i, kind in enumerate(types))
    return "\n".join([*lines, f'call void @"{name}"({arguments})', "ret void", "}", ""])


def _size(kind: str, engine: Any) -> int:
    """Return the bytes of an array type such as ``[4 x [8 x float]]``."""
    *lengths, element = re.findall(r"\d+(?= x)|\w+(?=\]+$)", kind)
    bits = {"float": 32, "double": 64}.get(element) or int(element.removeprefix("i"))
    size = bits // 8
    for length in lengths:
        size *= int(length)
    return size
