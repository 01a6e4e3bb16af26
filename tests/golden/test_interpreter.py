from dataclasses import replace

import numpy as np
import pytest
from gemm_programs import entries_of, expected_result, program_of, random_case, random_tensors, with_mapping

from accel.errors import ScheduleError
from accel.gemm import FP16_BITS, FP32_BITS, GemmShape
from accel.golden.interpreter import execution_order, interpret
from accel.golden.numeric import bits
from accel.presets import preset
from accel.program import Engine, Flag, Program
from accel.schedule import Mapping
from accel.sparsity import DENSE, NMPattern
from accel.tokens import resolve_tokens


def result_of(case):
    return "dw out" if case.out_bits == FP32_BITS else "out"


def check(rng, case, label):
    program, tensors = program_of(case), random_tensors(rng, case)
    expected = expected_result(case, tensors)
    for seed in (None, 0, 1):
        found = interpret(program, tensors, seed=seed)[result_of(case)]
        assert np.array_equal(bits(found), bits(expected)), f"{label}, order {seed}: {case}"
    return program


@pytest.mark.parametrize("seed", range(120))
def test_a_product_has_the_golden_bits_whatever_its_mapping(seed):
    rng = np.random.default_rng(seed)
    check(rng, random_case(rng), f"seed {seed}")


SHAPE = GemmShape(m=9, n=7, k_taps=3, k_inner=6, count=2)
BASE = replace(
    random_case(np.random.default_rng(0)),
    arch=preset("test").replace(
        array_rows=2, array_cols=2, west_buffer_bytes=2**14, north_buffer_bytes=2**14, output_buffer_bytes=2**14
    ),
    shape=SHAPE,
    pattern=NMPattern(2, 4),
    on_lhs=False,
    storage="compact",
    out_bits=FP16_BITS,
    mapping=Mapping("WS", False, 1, 2, 4, 4, 4, 2, "kmn"),
)


def opcodes(program):
    return program.instructions["opcode"]


@pytest.mark.parametrize("order", ["mnk", "mkn", "nmk", "nkm", "kmn", "knm"])
def test_partial_sums_go_to_dram_and_back_where_the_k_loop_is_not_innermost(order):
    program = check(np.random.default_rng(1), with_mapping(BASE, loop_order=order), order)
    loads = program.instructions[opcodes(program) == Engine.LOAD]
    spilled = sum(program.tables.views[view].side == "out" for view in loads["object"])
    assert (spilled > 0) == (order[-1] != "k")


def test_sums_stay_in_the_array_from_chunk_to_chunk_of_k():
    case = with_mapping(BASE, dataflow="OS", tile_m=2, tile_n=4, tile_groups=1, loop_order="mnk")
    program = check(np.random.default_rng(2), case, "OS in chunks")
    computes = program.instructions[opcodes(program) == Engine.COMPUTE]
    assert (computes["flags"] == 0).any()


@pytest.mark.parametrize("on_lhs", [False, True])
def test_an_operand_that_comes_dense_is_pruned_on_line(on_lhs):
    case = replace(with_mapping(BASE, swapped=on_lhs), storage="dense", on_lhs=on_lhs)
    program = check(np.random.default_rng(3), case, "on line")
    assert (opcodes(program) == Engine.PRUNE).any()


def test_a_pattern_of_smaller_groups_runs_in_those_of_the_machine():
    case = replace(with_mapping(BASE, run_keep=2, run_group=4), pattern=NMPattern(1, 2), shape=replace(SHAPE, k_inner=7))
    check(np.random.default_rng(4), case, "1:2 as 2:4")


def test_infinity_times_pruned_is_not_nan_through_a_program():
    case = replace(
        with_mapping(BASE, tile_m=1, tile_n=1, tile_groups=1, dataflow="OS"),
        shape=GemmShape(1, 1, 1, 4),
        pattern=NMPattern(1, 4),
    )
    case = with_mapping(case, run_keep=1)
    tensors = {"lhs": np.float16([[[[np.inf, 2, 1, 1]]]]), "rhs": np.float16([[[0, 3, 0, 0]]])}
    for storage in ("compact", "dense"):
        one = replace(case, storage=storage)
        given = tensors | {"weight rhs FF": entries_of(one, tensors["rhs"])}
        assert interpret(program_of(one), given)["out"].tolist() == [[[6]]]


def test_orders_are_those_that_tokens_allow():
    program = program_of(BASE)
    needs, codes = resolve_tokens(program), opcodes(program)
    orders = [tuple(execution_order(program, seed)) for seed in (None, 0, 1)]
    assert len(set(orders)) == 3
    for order in orders:
        done = np.zeros(len(Engine), np.int64)
        for number in order:
            assert (needs[number] <= done).all()
            done[codes[number]] += 1
        assert sorted(order) == list(range(len(codes)))
        for engine in Engine:
            mine = [number for number in order if codes[number] == engine]
            assert mine == sorted(mine)


def test_without_a_seed_a_compiled_program_runs_as_it_is_written():
    program = program_of(BASE)
    assert list(execution_order(program)) == list(range(len(program.instructions)))


# What must not pass.


def spoiled(program, engine, change, which=0):
    """Return the program with fields of one instruction changed, and its number."""
    instructions = program.instructions.copy()
    number = int(np.flatnonzero(instructions["opcode"] == engine)[which])
    for field, value in change.items():
        instructions[field][number] = value
    return Program(program.tables, instructions), number


DENSE_CASE = replace(
    with_mapping(BASE, dataflow="OS", run_keep=1, run_group=1, tile_m=4, tile_n=4, tile_groups=18, loop_order="mnk"),
    pattern=DENSE,
    storage="dense",
)


@pytest.mark.parametrize(
    ("engine", "which", "change", "message"),
    [
        (Engine.COMPUTE, 0, {"west": 5}, "west must be where a tile stands, not 5"),
        (Engine.COMPUTE, 0, {"north": 5}, "north must be where a tile stands, not 5"),
        (Engine.COMPUTE, 0, {"row": 1}, "rows of west 0 must hold 1 to 4, not 0 to 3"),
        (Engine.COMPUTE, 0, {"col": 3}, "columns of north 0 must hold 3 to 6, not 0 to 3"),
        (Engine.COMPUTE, 0, {"group": 3}, "group of the tile at west 0 must be 3, not 0"),
        (Engine.COMPUTE, 0, {"repeat": 1}, "repeat of the tile at west 0 must be 1, not 0"),
        (
            Engine.COMPUTE,
            0,
            {"flags": Flag.LAST},
            "sums in the array must be those of the same tile up to group 0, not others",
        ),
        (Engine.STORE, 0, {"out": 7}, "out must be where a tile stands, not 7"),
        (Engine.STORE, 0, {"row": 1}, "row of the tile at out 0 must be 1, not 0"),
    ],
)
def test_a_region_without_the_needed_tile_is_an_error_that_names_the_instruction(engine, which, change, message):
    case = DENSE_CASE
    program, number = spoiled(program_of(case), engine, change, which)
    with pytest.raises(ScheduleError) as caught:
        interpret(program, random_tensors(np.random.default_rng(0), case))
    assert str(caught.value) == f"instruction {number} ({engine.name} of layer FF): {message}"


def test_results_stored_before_they_are_complete_are_partial_sums_that_nobody_can_read():
    case = replace(DENSE_CASE, mapping=replace(DENSE_CASE.mapping, dataflow="WS"))
    program, _ = spoiled(program_of(case), Engine.COMPUTE, {"flags": Flag.FIRST})
    found = interpret(program, random_tensors(np.random.default_rng(0), case))
    whole = interpret(program_of(case), random_tensors(np.random.default_rng(0), case))
    assert not np.array_equal(bits(found["out"]), bits(whole["out"]))


def test_an_unpruned_tile_does_not_fit_the_mode():
    case = replace(BASE, storage="dense")
    program = program_of(case)
    kept = program.instructions["opcode"] != Engine.PRUNE
    table = program.instructions[kept].copy()
    table["waits"], table["signals"] = table["waits"] & ~np.uint8(8), table["signals"] & ~np.uint8(8)
    number = int(np.flatnonzero(table["opcode"] == Engine.COMPUTE)[0])
    where = f"instruction {number} (COMPUTE of layer FF)"
    with pytest.raises(ScheduleError) as caught:
        interpret(Program(program.tables, table), random_tensors(np.random.default_rng(0), case))
    assert str(caught.value) == f"{where}: a group of the tile at north must hold at most 2 elements, not more; prune it"


def test_a_tile_is_pruned_once():
    case = replace(BASE, storage="dense")
    program = program_of(case)
    table = program.instructions
    first = int(np.flatnonzero(table["opcode"] == Engine.PRUNE)[0])
    again = table[first : first + 1].copy()
    again["waits"] = again["signals"] = 0
    longer = np.concatenate([table[: first + 1], again, table[first + 1 :]])
    with pytest.raises(ScheduleError) as caught:
        interpret(Program(program.tables, longer), random_tensors(np.random.default_rng(0), case))
    assert str(caught.value) == (
        f"instruction {first + 1} (PRUNE of layer FF): the tile at north 0 must be dense, not pruned before"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "tensor 'rhs' must be given or written before it is read, not missing"),
        ({"rhs": np.zeros((3, 3), np.float16)}, "tensor 'rhs' must have 252 elements (14, 3, 6), not 9 (3, 3)"),
        ({"rhs": ()}, "tensor 'rhs' must be an array, not a compact copy"),
    ],
)
def test_a_tensor_that_is_not_what_the_program_reads_is_refused(given, message):
    program = program_of(DENSE_CASE)
    with pytest.raises(ScheduleError) as caught:
        interpret(program, given)
    assert str(caught.value) == f"instruction 0 (LOAD of layer FF): {message}"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ((0, 1), "an operand must be one tensor to be executed, not 2 side by side"),
        ((0,), "an operand must be whole and as it is stored to be executed, not a part, in another order or shared"),
    ],
)
def test_an_operand_without_access_is_refused(tensors, message):
    program = program_of(DENSE_CASE)
    views = [view.model_copy(update={"access": None, "tensors": tensors}) for view in program.tables.views]
    tables = program.tables.model_copy(update={"views": tuple(views)})
    with pytest.raises(ScheduleError) as caught:
        interpret(Program(tables, program.instructions), {})
    assert str(caught.value) == f"instruction 0 (LOAD of layer FF): {message}"


def test_instructions_in_a_circle_are_refused():
    table = program_of(DENSE_CASE).instructions[:2].copy()
    table["opcode"] = Engine.LOAD, Engine.STORE
    table["waits"], table["signals"] = (1 << Engine.STORE, 1 << Engine.LOAD), (1 << Engine.STORE, 1 << Engine.LOAD)
    with pytest.raises(ScheduleError) as caught:
        interpret(Program(program_of(DENSE_CASE).tables, table), {})
    assert str(caught.value) == "program: instructions [0, 1] must not wait for each other in a circle; compile it again"


def test_a_tensor_whose_place_another_took_is_lost():
    case = DENSE_CASE
    program = program_of(case)
    lhs, rhs, out = (next(t for t in program.tables.tensors if t.name == name) for name in ("lhs", "rhs", "out"))
    moved = {out.name: rhs.address}
    tensors = tuple(t.model_copy(update={"address": moved.get(t.name, t.address)}) for t in program.tables.tensors)
    sized = tuple(t.model_copy(update={"bytes": 64}) for t in tensors)
    tables = program.tables.model_copy(update={"tensors": sized})
    assert lhs.name == "lhs"
    with pytest.raises(ScheduleError) as caught:
        interpret(Program(tables, program.instructions), random_tensors(np.random.default_rng(0), case))
    assert str(caught.value).endswith("tensor 'rhs' must be read before tensor 'out' takes its place in DRAM, not after")
