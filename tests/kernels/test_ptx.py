"""The CUDA kernels compiled to PTX, which needs neither GPU nor driver: that they compile, and to what."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ptx_cases import (
    IDS_ALONE,
    IN_16_BITS,
    NARROW,
    Case,
    Compiled,
    cases,
    compiled,
    compiled_for,
    firsts,
    launched,
    representatives,
)
from ptxas import (
    ARCHITECTURES,
    CEILINGS,
    NEWEST,
    STEPS,
    Usage,
    architecture,
    assembled,
    assembled_for,
    assembler,
    exceeding,
    recorded,
    summarised,
    usage_in,
)

from nnkit.bench.records import load_result
from nnkit.extras import install_command
from nnkit.kernels.cuda import TEMPLATES
from nnkit.nn.losses import loss_from, loss_names
from nnkit.nn.optimizers import optimizer_from, optimizer_names

pytestmark = pytest.mark.extra("numba_cuda")

BENCH = Path(__file__).resolve().parents[2] / "bench"
CASES = cases()
PLAIN = {name: case for name, case in CASES.items() if not case.storage}
HALVES = {name: case for name, case in CASES.items() if case.storage}
FLOAT32 = [case for case in PLAIN.values() if case.dtype == "float32"]
SCALING = ("scale_columns", "scale_columns_gradient")
# These hold no loss and no figure of a step, but for a rate of dropout that varies: nothing in them is meant
# to be a float64.
NORMALISING = ("layer_norm", "layer_norm_sums", "layer_norm_gradient")
OF_MEMBERS = ("scale_members", "scale_members_gradient", "sum_members")
WITHOUT_FLOAT64 = [
    case
    for case in FLOAT32
    if case.kernel in ("forward", "backward", "gather", "add", *NORMALISING, *OF_MEMBERS, *SCALING, *NARROW)
    and "DROPOUT_VARIES" not in case.constants
]
# One kernel in each dtype.
ANEW = [
    (case.name, capability)
    for case in (CASES[name] for name in sorted(representatives()))
    if case.kernel == "squared_norm"
    for capability in sorted(case.capabilities - {NEWEST})
]


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, Future[Compiled]]]:
    """Compile everything, in processes of their own; skip where Numba finds no NVVM."""
    from numba.cuda.cudadrv.error import NvvmSupportError

    workers = min(8, len(os.sched_getaffinity(0)))
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), gc.set_threshold, gc.get_threshold()
    )
    with pool:
        futures = {name: pool.submit(compiled, name) for name in CASES}
        if isinstance(next(iter(futures.values())).exception(), NvvmSupportError):
            pool.shutdown(cancel_futures=True)
            pytest.skip(f"Numba finds no NVVM: {install_command('numba_cuda')}")
        for name, capability in ANEW:
            futures[f"{name} for {capability}"] = pool.submit(compiled_for, name, capability)
        yield futures
        pool.shutdown(cancel_futures=True)


def ptx(results: dict[str, Future[Compiled]], name: str) -> str:
    return results[name].result().ptx[NEWEST]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_compiles_and_assembles_without_a_spill(case: Case, results: dict[str, Future[Compiled]]) -> None:
    result = results[case.name].result()
    assert set(result.ptx) == case.capabilities
    for (major, minor), text in result.ptx.items():
        assert f".target sm_{major}{minor}" in text
        assert text.count(".entry") == 1
        assert ".local" not in text, "an array in slow memory of the thread's own"
    if assembler() is None:
        return
    expected = case.capabilities if case.name in firsts() else {NEWEST}
    assert set(result.usage) == expected & set(assembled_for())
    for capability, usage in result.usage.items():
        told = f"{usage} on {architecture(capability)}, and at most {CEILINGS[case.kernel]}"
        assert usage.unspilled, told
        assert CEILINGS[case.kernel].admits(usage, case.dtype, capability), told


@pytest.mark.skipif(assembler() is None, reason=f"there is no ptxas: {install_command('numba_cuda')}")
def test_the_assembler_knows_every_architecture() -> None:
    """What it does not know is left out of the tests above."""
    missing = [architecture(one) for one in ARCHITECTURES if one not in assembled_for()]
    if missing:
        pytest.skip(f"this ptxas does not know {', '.join(missing)}")


def test_every_kernel_has_a_ceiling_of_its_registers_and_is_assembled_for_every_architecture() -> None:
    assert set(CEILINGS) == set(TEMPLATES) == {CASES[name].kernel for name in firsts()}
    for ceiling in CEILINGS.values():
        assert len(ceiling.registers) == len(ceiling.in_float64) == len(ARCHITECTURES)
        assert {*ceiling.registers, *ceiling.in_float64} <= set(STEPS)
        assert ceiling.shared <= 48 * 1024
    assert all(CASES[name].possible(ARCHITECTURES) == CASES[name].capabilities for name in firsts())


def test_the_recorded_registers_of_all_cases_and_architectures_keep_to_the_ceilings() -> None:
    result = load_result(BENCH / "results" / "ptxas.json")
    kernels = recorded(result)
    assert {on for some in kernels.values() for taken in some.values() for on in taken} == set(
        map(architecture, ARCHITECTURES)
    )
    assert [summarised(name, some) for name, some in kernels.items()] == result.records
    assert [
        figure for record in result.records for figure in record.figures.values() if not figure.reached
    ] == []
    assert list(exceeding(kernels)) == []
    for spilled in (
        [30, 0, 8, 0, 0],
        [30, 0, 0, 4, 0],
        [30, 0, 0, 0, 4],
        [250, 0, 0, 0, 0],
        [30, 50_000, 0, 0, 0],
    ):
        assert len(list(exceeding({"forward": {"forward-relu-float32": {"sm_90": spilled}}}))) == 1


@pytest.mark.skipif(assembler() is None, reason="there is no ptxas")
@pytest.mark.parametrize("activation", ["identity", "relu", "relu-dropout", "leaky_relu", "elu", "tanh"])
def test_the_plain_layers_let_all_threads_of_a_multiprocessor_be_resident(activation: str, results) -> None:
    assert results[f"forward-{activation}-float32"].result().usage[NEWEST].registers <= 32


REPORT = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'k' for 'sm_90'
ptxas info    : Function properties for k
    {} bytes stack frame, {} bytes spill stores, {} bytes spill loads
ptxas info    : Used {} registers, used 1 barriers{}, 4 bytes cmem[0]
"""


def test_a_report_of_ptxas_is_read() -> None:
    assert usage_in(REPORT.format(0, 0, 0, 32, "")) == Usage(32, 0, 0, 0, 0)
    assert usage_in(REPORT.format(8, 4, 16, 255, ", 18440 bytes smem")) == Usage(255, 18440, 8, 4, 16)
    # A function that is not inlined, such as the power of float64s.
    called = "    0 bytes stack frame, 0 bytes spill stores, 4 bytes spill loads\n"
    assert usage_in(REPORT.format(8, 0, 0, 40, "") + called) == Usage(40, 0, 8, 0, 4)
    with pytest.raises(ValueError, match="no report on one kernel"):
        usage_in("")


# A sum over 96 values that are all alive at once.
HUNGRY = """.version 7.0
.target sm_70
.address_size 64
.visible .entry k(.param .u64 p)
.maxntid 1024
{{
.reg .f32 %f<200>;
.reg .u64 %rd<4>;
.shared .align 4 .b8 room[512];
ld.param.u64 %rd1, [p];
{loads}
bar.sync 0;
{stores}
ret;
}}
"""


@pytest.mark.skipif(assembler() is None, reason="there is no ptxas")
def test_what_spills_is_seen_and_what_is_no_ptx_is_refused() -> None:
    loads = "\n".join(f"ld.volatile.global.f32 %f{i}, [%rd1+{4 * i}];" for i in range(96))
    stores = "\n".join(f"st.volatile.global.f32 [%rd1+{4 * i}], %f{95 - i};" for i in range(96))
    usage = assembled(HUNGRY.format(loads=loads, stores=stores), NEWEST)
    assert usage.registers <= 64
    assert min(usage.stack, usage.spill_stores, usage.spill_loads) > 0
    with pytest.raises(ValueError, match="fatal"):
        assembled("no PTX", NEWEST)


@pytest.mark.parametrize(
    ("package", "folder"), [("nvidia_cuda_nvcc_cu12", "cuda_nvcc"), ("nvidia_cuda_nvcc", "cu13")]
)
def test_ptxas_is_found_in_the_wheels_of_cuda_12_and_13(
    package: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described, place = tmp_path / f"{package}-1.0.dist-info", f"nvidia/{folder}/bin/ptxas"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (described / "RECORD").write_text(f"{place},,\nnvidia/{folder}/bin/nvlink,,\n")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert assembler.__wrapped__() == str(tmp_path / place)


@pytest.mark.parametrize(("name", "capability"), ANEW)
def test_a_capabilitys_ptx_is_what_compiling_python_for_it_makes(name: str, capability, results) -> None:
    """But for names, in which Numba counts how often it has compiled a function."""
    texts = results[f"{name} for {capability}"].result(), results[name].result().ptx[capability]
    anew, of_one = (re.sub(r"_ZN[\w$]+|_cudapy_smem_\d+", "", text) for text in texts)
    assert anew == of_one


@pytest.mark.parametrize("case", WITHOUT_FLOAT64, ids=lambda case: case.name)
def test_no_element_of_a_float32_kernel_meets_a_float64(case: Case, results) -> None:
    assert not re.search(r"\.f64\b", ptx(results, case.name))


def test_an_update_in_float32_makes_a_float64_of_no_element(results) -> None:
    names = [case.name for case in FLOAT32 if case.kernel == "update"]
    assert len(names) == 11
    for name in names:
        assert "cvt.f64.f32" not in ptx(results, name)


def test_a_loss_is_a_float64_once_for_four_elements(results) -> None:
    text = ptx(results, "poisson-blocks-value-float32")
    exponentials = text.count("ex2.approx")
    assert exponentials % 4 == 0
    # One for four losses; the row's weight and the number of outputs are the other two.
    assert text.count("cvt.f64.f32") == exponentials // 4 + 2


@pytest.mark.parametrize("case", PLAIN.values(), ids=PLAIN)
def test_accesses_are_wide_where_rows_are_made_of_fours(case: Case, results) -> None:
    text = ptx(results, case.name)
    # The widest access is 16 bytes: four float32 or two float64, named for their type or as bits.
    kind = r"v4\.[fbu]32" if case.dtype == "float32" else r"v2\.[fbu]64"
    loads = len(re.findall(rf"ld\.global\.{kind}", text))
    stores = len(re.findall(rf"st\.global\.{kind}", text))
    if not case.wide:
        assert loads == stores == 0
        return
    # The numbers of a sparse row are looked for one by one.
    assert (loads > 0) != bool(case.constants.get("SPARSE"))
    written = not case.kernel.startswith("squared_norm") and case.constants.get("GRADIENT", True)
    assert (stores > 0) == written


def test_bytes_are_read_and_written_four_at_a_time(results) -> None:
    four = r"\.global\.(v4\.[ub]8|[ub]32)\b"
    for name in ("gather-uint8-784-float32", "backward-relu-dropout-float32"):
        assert re.search("ld" + four, ptx(results, name))
        assert "ld.global.u8" not in ptx(results, name)
    assert re.search("st" + four, ptx(results, "forward-relu-dropout-float32"))
    assert "st.global.u8" not in ptx(results, "forward-relu-dropout-float32")


WITH_HYPERPARAMETERS = {
    name: case
    for name, case in PLAIN.items()
    if any(isinstance(value, float) for value in case.constants.values())
}


@pytest.mark.parametrize("case", WITH_HYPERPARAMETERS.values(), ids=WITH_HYPERPARAMETERS)
def test_no_value_of_a_hyperparameter_makes_another_kernel(case: Case) -> None:
    constants = {
        key: value / 2 + 0.01 if isinstance(value, float) else value for key, value in case.constants.items()
    }
    one, other = launched(case), launched(replace(case, constants=constants))
    assert one.kernel.path == other.kernel.path
    assert one.kernel.specialised.values(case.constants) != other.kernel.specialised.values(constants)


def test_each_optimizers_and_each_losss_hyperparameters_are_among_the_cases() -> None:
    found = {key for case in WITH_HYPERPARAMETERS.values() for key in case.constants if key.islower()}
    fields = {key for name in optimizer_names() for key in optimizer_from(name).constants}
    assert found >= fields | {key for name in loss_names() for key in loss_from(name).constants} | {"ceiling"}


def test_every_kernel_is_compiled_in_every_type() -> None:
    # Sums, parameters and an ensemble's outputs are of the type of the arithmetic.
    of_sums, of_members = {"add_partials", "interpolate_gradient"}, {"join_members", "join_gradient"}
    without_16_bits = {*IDS_ALONE, *of_sums, *of_members, "sum_knots"}
    for storage, kernels in (("float16", set(TEMPLATES) - without_16_bits), ("bfloat16", set(IN_16_BITS))):
        assert {case.kernel for case in HALVES.values() if case.storage == storage} == kernels
    assert {case.kernel for case in PLAIN.values() if case.dtype == "float64"} == set(TEMPLATES)


@pytest.mark.parametrize("case", HALVES.values(), ids=HALVES)
def test_16_bits_are_read_and_written_four_at_a_time_and_converted_by_one_instruction(
    case: Case, results
) -> None:
    text = ptx(results, case.name)
    assert "call" not in re.sub(r"//.*", "", text), "a function of another module"
    kinds = {np.dtype(array.dtype).name for array in case.arguments.values() if isinstance(array, np.ndarray)}
    if case.storage not in kinds:
        return
    reads, writes = {
        "float16": ("cvt.f32.f16", "cvt.rn.f16.f32"),
        "bfloat16": ("mov.b32", "cvt.rn.bf16.f32"),
    }[case.storage]
    both = case.kernel in ("forward", "backward", "add", *NORMALISING, *OF_MEMBERS, *SCALING, *NARROW) or (
        case.kernel == "softmax_loss" and "BIAS" in case.constants
    )
    assert (reads in text) or not both
    only_read = case.kernel in (
        *("embed_gradient", "layer_norm_sums", "sum_places", "find_bins"),
        *("periodic_gradient", "periodic_lines"),
    )
    assert (writes in text) != only_read
    loads, stores = (len(re.findall(rf"{way}\.global\.v4\.[bu]16", text)) for way in ("ld", "st"))
    if not case.wide:
        assert loads == stores == 0
        return
    if only_read:
        assert loads > 0
    else:
        assert stores > 0 or "SPARSE" in case.name
