import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program_cases import (
    BOTH,
    CASES,
    COMPUTE,
    FENCE,
    FIRST,
    LAST,
    LOAD,
    NORTH_VIEW,
    OUT_VIEW,
    PRUNE,
    PRUNED_VIEW,
    STORE,
    STREAM_KERNEL,
    SUMS_VIEW,
    UPDATE,
    VECTOR,
    WEST_VIEW,
    WS_MODE,
    Hand,
    north_stays,
    outputs_stay,
    outputs_stay_in_parts,
    pruned_on_line,
    sums_in_dram,
    tables,
)

from accel.dataflow import verifier_kernels as kernels
from accel.dataflow.verifier import verify
from accel.errors import ScheduleError
from accel.program import INSTRUCTION, Engine, Program, View
from accel.tokens import resolve_tokens

WEST_TILE = "the tile at west 0 of instruction 0 (LOAD)"
NORTH_TILE = "the tile at north 0 of instruction 1 (LOAD)"


def refused(program, problem):
    with pytest.raises(ScheduleError, match=f"^{re.escape(f'step.nmp: instruction {problem}')}$"):
        verify(program, "step.nmp")


def problem_of(program):
    """What `verify` says of a program, nothing if it passes."""
    try:
        verify(program, "step.nmp")
    except ScheduleError as error:
        return str(error)
    return ""


def changed(hand, place, **fields):
    """The program of `hand` with other fields in the instruction at `place`."""
    program = hand.program()
    for name, value in fields.items():
        program.instructions[name][place] = value
    return program


def one_product():
    """Two loads, COMPUTE, STORE, to be written on."""
    hand = Hand()
    return hand, hand.load_west(), hand.load_north()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_valid_program_passes(case):
    verify(case().program())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_order_of_engines_in_the_file_does_not_matter(case):
    program = case().program()
    by_engine = np.argsort(-program.instructions["opcode"].astype(int), kind="stable")
    verify(Program(program.tables, program.instructions[by_engine]))


@pytest.mark.parametrize(
    ("place", "fields", "problem"),
    [
        (3, {"opcode": 6}, "opcode must be less than 6, not 6"),
        (0, {"flags": 3}, "flags must be of FENCE for LOAD, not 3"),
        (2, {"flags": 14}, "flags must be of FENCE, FIRST, LAST for COMPUTE, not 14"),
        (0, {"waits": 1}, "waits must be of engines other than LOAD, not 1"),
        (8, {"signals": 64}, "signals must be of engines other than STORE, not 64"),
        (4, {"site": 2}, "site must be less than the number of sites (2), not 2"),
        (0, {"object": 5}, "object must be less than the number of views (5), not 5"),
        (2, {"object": 2}, "object must be less than the number of modes (2), not 2"),
        (5, {"object": 2}, "object must be less than the number of kernels (2), not 2"),
        (10, {"object": 1}, "object must be less than the number of updates (1), not 1"),
        (6, {"object": WEST_VIEW}, f"object must be a view of side out for STORE, not {WEST_VIEW}"),
        (0, {"object": OUT_VIEW}, f"object must be a view of 32-bit elements where LOAD brings partial sums, not {OUT_VIEW}"),
        (0, {"north": 1}, "north must be 0 here, where LOAD does not use it, not 1"),
        (1, {"row": 2}, "row must be 0 here, where LOAD does not use it, not 2"),
        (2, {"bytes": 8}, "bytes must be 0 here, where COMPUTE does not use it, not 8"),
        (6, {"group": 1}, "group must be 0 here, where STORE does not use it, not 1"),
        (9, {"words": 1}, "words must be 0 here, where VECTOR does not use it, not 1"),
        (5, {"bytes": 1}, "bytes must be 0 here, where VECTOR does not use it, not 1"),
        (10, {"repeat": 1}, "repeat must be 0 here, where UPDATE does not use it, not 1"),
    ],
)
def test_what_does_not_exist_is_refused(place, fields, problem):
    refused(changed(outputs_stay(), place, **fields), f"{place}: {problem}")


def test_a_view_that_prune_does_not_take_is_refused():
    program = changed(pruned_on_line(), 2, object=NORTH_VIEW)
    refused(program, f"2: object must be a view that is pruned on line, not {NORTH_VIEW}")


@pytest.mark.parametrize(
    ("place", "fields", "problem"),
    [
        (3, {"west": 33}, "west and words must end within the 64 words of the west buffer, not at 65"),
        (4, {"north": 2**32 - 1}, f"north and words must end within the 64 words of the north buffer, not at {2**32 + 15}"),
        (2, {"out": 63}, "out and words must end within the 64 words of the output buffer, not at 65"),
        (5, {"out": 63}, "out and words must end within the 64 words of the output buffer, not at 65"),
        (6, {"out": 63}, "out and words must end within the 64 words of the output buffer, not at 65"),
        (0, {"bytes": 255}, "bytes must be 256 for this tile, not 255"),
        (0, {"bytes": 2**64 - 1}, f"bytes must be 256 for this tile, not {2**64 - 1}"),
        (0, {"words": 33}, "words must be 32 for this tile, not 33"),
        (4, {"words": 15}, "words must be 16 for this tile, not 15"),
        (2, {"words": 4}, "words must be 2 for this tile, not 4"),
        (6, {"bytes": 16}, "bytes must be 32 for this tile, not 16"),
        (6, {"words": 0}, "words must be at least 1, not 0"),
        (0, {"rows": 5}, "row and rows must end within the 4 of view 0, not at 5"),
        (0, {"row": 2**32 - 1}, f"row and rows must end within the 4 of view 0, not at {2**32 + 3}"),
        (1, {"col": 1}, "col and cols must end within the 2 of view 1, not at 3"),
        (0, {"group": 1}, "group and groups must end within the 8 of view 0, not at 9"),
        (6, {"col": 1}, "col and cols must end within the 2 of view 2, not at 3"),
        (0, {"repeat": 2}, "repeat must be less than the 2 of view 0, not 2"),
        (1, {"cols": 0}, "cols must be at least 1, not 0"),
        (2, {"rows": 0}, "rows must be at least 1, not 0"),
        (2, {"groups": 0}, "groups must be at least 1, not 0"),
        (2, {"group": 1}, "group must be 0 with FIRST, not 1"),
        (2, {"flags": LAST}, "flags must have FIRST at group 0, not leave it out"),
        (
            2,
            {"flags": FIRST, "rows": 5, "words": 0},
            "rows must be at most 4, one array tile, where sums stay in the array, not 5",
        ),
        (
            2,
            {"flags": FIRST, "cols": 3, "words": 0},
            "cols must be at most 2, one array tile, where sums stay in the array, not 3",
        ),
        (2, {"flags": FIRST}, "words must be 0 for this tile, not 2"),
        (2, {"rows": 2**32 - 1, "cols": 2**32 - 1}, f"words must be {2**56} for this tile, not 2"),
    ],
)
def test_regions_and_sizes_that_cannot_be_are_refused(place, fields, problem):
    refused(changed(outputs_stay(), place, **fields), f"{place}: {problem}")


def test_the_first_instruction_with_a_problem_is_named():
    program = changed(outputs_stay(), 4, words=1)
    program.instructions["bytes"][1] = 7
    refused(program, "1: bytes must be 128 for this tile, not 7")


def test_room_for_sums_that_come_round_is_asked_for():
    refused(changed(north_stays(), 5, words=2), "5: words must be 4 for this tile, not 2")


def test_results_that_do_not_come_round_take_their_own_room():
    view = {"side": "west", "rows": 4, "groups": 2, "row_bits": 128, "group_bits": 64, "distinct": 4}
    views = (
        View(tensors=(0,), **view),
        View(tensors=(1,), **{**view, "side": "north", "rows": 2, "distinct": 2}),
        *tables().views[2:],
    )
    hand = Hand()
    loads = [hand.load_west(groups=2), hand.load_north(groups=2)]
    hand.store([hand.compute(loads, mode=WS_MODE, groups=2, words=2)])
    verify(hand.program(views=views))


def test_entries_that_take_more_than_dense_words_get_room():
    operand = {"tensors": (1,), "side": "north", "rows": 2, "groups": 8, "row_bits": 512, "group_bits": 64, "distinct": 2}
    views = (*tables().views[:3], View(**operand, prune_keep=4, prune_group=4), tables().views[4])
    program = pruned_on_line().program(views=views)
    refused(program, "1: words must be 18 for this tile, not 16")
    program.instructions["words"][1:3] = 18
    verify(program)


def test_the_halo_of_a_whole_tile_and_equal_rows_are_counted():
    view = View(tensors=(0,), side="west", rows=4, groups=8, row_bits=100, halo_bits=33, group_bits=64, distinct=3)
    program = outputs_stay().program(views=(view, *tables().views[1:]))
    refused(program, "0: bytes must be 42 for this tile, not 256")


def test_a_wait_without_a_signal_is_refused():
    program = outputs_stay().program()
    program.instructions["signals"][4] = 0
    refused(program, "7: waits must be for tokens that are sent, not token 2 from LOAD to COMPUTE of 1")


def test_a_signal_without_a_wait_is_refused():
    program = outputs_stay().program()
    program.instructions["waits"][7] = 1 << STORE
    refused(program, "4: signals must be tokens that are taken, not token 2 from LOAD to COMPUTE of 1")


def test_a_circle_of_two_is_refused():
    hand, west, north = one_product()
    first = hand.compute([west, north])
    hand.store([first])
    hand.after[0] = [3]
    refused(
        hand.program(),
        "0: waits must not form a circle, not LOAD for instruction 3 (STORE), which waits for instruction 2 (COMPUTE), "
        "which waits for instruction 0 (LOAD)",
    )


def test_a_circle_through_the_order_of_an_engine_is_refused():
    hand = Hand()
    hand.load_west([3]), hand.load_north()
    hand.add(VECTOR, [1], object=STREAM_KERNEL)
    hand.add(UPDATE, [2])
    refused(
        hand.program(),
        "0: waits must not form a circle, not LOAD for instruction 3 (UPDATE), which waits for instruction 2 (VECTOR), "
        "which waits for instruction 0 (LOAD)",
    )


def test_a_circle_that_an_innocent_instruction_waits_for_is_named_without_it():
    hand = Hand()
    hand.load_west([1])
    hand.add(VECTOR, [2], object=STREAM_KERNEL)
    hand.add(UPDATE, [1])
    refused(
        hand.program(),
        "1: waits must not form a circle, not VECTOR for instruction 2 (UPDATE), which waits for instruction 1 (VECTOR)",
    )


RACES = {
    "a tile read before it is there": (outputs_stay, 2, 1, "COMPUTE", "LOAD", "north"),
    "a kernel on results not yet there": (outputs_stay, 5, 2, "VECTOR", "COMPUTE", "output"),
    "results stored before the kernel": (outputs_stay, 6, 5, "STORE", "VECTOR", "output"),
    "results overwritten before the store": (outputs_stay, 7, 6, "COMPUTE", "STORE", "output"),
    "an operand overwritten while it is used": (north_stays, 3, 2, "LOAD", "COMPUTE", "west"),
    "sums loaded before they are stored": (sums_in_dram, 6, 3, "LOAD", "STORE", "output"),
    "a tile pruned before it is there": (pruned_on_line, 2, 1, "PRUNE", "LOAD", "north"),
}


@pytest.mark.parametrize(("case", "place", "other", "this_engine", "other_engine", "buffer"), RACES.values(), ids=RACES)
def test_a_race_is_refused(case, place, other, this_engine, other_engine, buffer):
    hand = case()
    hand.after[place] = [earlier for earlier in hand.after[place] if earlier != other]
    refused(
        hand.program(),
        f"{place}: {this_engine} must be ordered by tokens with instruction {other} ({other_engine}), which uses the same "
        f"words of the {buffer} buffer; let {this_engine} wait for a token of {other_engine} that comes after it",
    )


def test_a_tile_read_before_it_is_pruned_is_a_race():
    hand, west, north = Hand(), 0, 1
    hand.load_west(), hand.load_north(view=PRUNED_VIEW), hand.prune([1])
    hand.store([hand.compute([west, north])])
    refused(
        hand.program(),
        "3: COMPUTE must be ordered by tokens with instruction 2 (PRUNE), which uses the same words of the north buffer; "
        "let COMPUTE wait for a token of PRUNE that comes after it",
    )


def test_a_fence_does_not_order_engines():
    hand = outputs_stay()
    hand.records[2]["flags"] = BOTH | FENCE
    hand.after[2] = [0]
    with pytest.raises(ScheduleError, match="instruction 2: COMPUTE must be ordered by tokens with instruction 1"):
        verify(hand.program())


def test_order_through_a_third_engine_is_order():
    hand, west, north = one_product()
    compute = hand.compute([west, north])
    store = hand.store([compute])
    hand.load_west([store])
    verify(hand.program())


def test_a_part_of_a_region_that_is_left_is_still_watched():
    hand, west, north = one_product()
    hand.store([hand.compute([west, north])])
    hand.load_west([2], west=16)
    hand.load_west(west=0, repeat=1)
    verify(hand.program())  # the last LOAD comes after the one that waited
    other = Hand()
    loads = [other.load_west(), other.load_north()]
    other.compute(loads)
    other.load_sums(out=1)
    refused(
        other.program(),
        "3: LOAD must be ordered by tokens with instruction 2 (COMPUTE), which uses the same words of the output buffer; "
        "let LOAD wait for a token of COMPUTE that comes after it",
    )


def test_a_region_where_nothing_was_written_is_refused():
    program = changed(outputs_stay(), 2, west=40)
    program.instructions["west"][3] = 0  # so that nothing is written at 40 later, either
    refused(program, "2: west must be where a whole tile stands in the west buffer, not 40, where nothing was written")


def test_a_region_that_starts_inside_a_tile_is_refused():
    refused(
        changed(outputs_stay(), 2, north=1),
        "2: north must be where a whole tile stands in the north buffer, not 1, among words that instruction 1 (LOAD) wrote",
    )


def test_a_tile_that_was_partly_overwritten_is_refused():
    hand, west, north = one_product()
    again = hand.load_west(west=16)
    hand.store([hand.compute([west, north, again])])
    refused(
        hand.program(),
        "3: west must be where a whole tile stands in the west buffer, not 0, among words that instruction 0 (LOAD) wrote",
    )


@pytest.mark.parametrize(
    ("case", "place", "fields", "problem"),
    [
        (outputs_stay, 2, {"repeat": 1}, f"repeat must be 0, that of {WEST_TILE}, not 1"),
        (outputs_stay, 1, {"repeat": 1}, f"repeat must be 1, that of {NORTH_TILE}, not 0"),
        (outputs_stay, 2, {"rows": 3, "row": 2}, f"row and rows must be of 0 to 3, those of {WEST_TILE}, not 2 to 4"),
        (
            outputs_stay,
            2,
            {"cols": 1, "col": 2, "words": 1},
            f"col and cols must be of 0 to 1, those of {NORTH_TILE}, not 2 to 2",
        ),
        (outputs_stay, 2, {"groups": 7}, f"group and groups must be of 0 to 7, those of {WEST_TILE}, not 0 to 6"),
        (outputs_stay, 5, {"row": 1}, "row and rows must be of 0 to 3, those of {out} (COMPUTE), not 1 to 4"),
        (outputs_stay, 5, {"repeat": 1}, "repeat must be 0, that of {out} (COMPUTE), not 1"),
        (outputs_stay, 5, {"words": 3}, "words must be 2, that of {out} (COMPUTE), not 3"),
        (outputs_stay, 6, {"cols": 1, "bytes": 8}, "col and cols must be of 0 to 1, those of {out} (COMPUTE), not 0 to 0"),
        (
            outputs_stay,
            6,
            {"object": SUMS_VIEW},
            "object must be a view of 16-bit elements like {out} (COMPUTE), not view 4 of 32",
        ),
        (pruned_on_line, 2, {"repeat": 1}, f"repeat must be 0, that of {NORTH_TILE}, not 1"),
        (pruned_on_line, 2, {"cols": 1}, f"col and cols must be of 0 to 1, those of {NORTH_TILE}, not 0 to 0"),
        (pruned_on_line, 2, {"groups": 7}, f"group and groups must be of 0 to 7, those of {NORTH_TILE}, not 0 to 6"),
        (pruned_on_line, 2, {"words": 17}, f"words must be 16, that of {NORTH_TILE}, not 17"),
        (pruned_on_line, 1, {"object": NORTH_VIEW}, f"object must be {NORTH_VIEW}, that of {NORTH_TILE}, not {PRUNED_VIEW}"),
        (north_stays, 5, {"repeat": 1}, "repeat must be 0, that of the tile at west 0 of instruction 3 (LOAD), not 1"),
        (north_stays, 2, {"flags": BOTH}, "flags must have LAST only at the last of the 8 groups of k, not before"),
        (north_stays, 5, {"flags": 0}, "flags must have LAST at the last of the 8 groups of k, not leave it out"),
        (sums_in_dram, 3, {"object": OUT_VIEW}, "{out} (COMPUTE) must be complete results, not sums to go on from"),
    ],
)
def test_a_region_with_another_tile_is_refused(case, place, fields, problem):
    table = case().program().instructions
    makers = {1: 2, 2: 2, 5: 3}  # who reads what a changed LOAD brought
    at = makers.get(place, place) if table["opcode"][place] == LOAD else place
    problem = problem.format(out="the tile at out 0 of instruction 2")
    refused(changed(case(), place, **fields), f"{at}: {problem}")


def test_a_dense_tile_of_a_view_to_be_pruned_is_refused():
    hand = Hand()
    loads = [hand.load_west(), hand.load_north(view=PRUNED_VIEW)]
    hand.store([hand.compute(loads)])
    refused(hand.program(), f"2: {NORTH_TILE} must be pruned before COMPUTE reads it, not dense; add a PRUNE")


def test_a_tile_pruned_twice_is_refused():
    hand = pruned_on_line()
    hand.prune([3])
    refused(hand.program(), f"5: {NORTH_TILE} must be pruned once, not again")


def test_operands_of_different_products_are_refused():
    deeper = {"groups": 9, "row_bits": 576, "group_bits": 64}
    view = View(tensors=(1,), side="north", rows=2, distinct=2, repeats=2, **deeper)
    views = (tables().views[0], view, *tables().views[2:])
    program = outputs_stay_in_parts().program(views=views)
    refused(program, "2: north must be a tile of a view with as many groups of k as the one at west, not 9")


def test_a_tile_of_another_repeat_is_refused():
    hand = outputs_stay()
    hand.records[4]["repeat"] = 0
    refused(hand.program(), "7: repeat must be 0, that of the tile at north 16 of instruction 4 (LOAD), not 1")


def test_sums_of_other_groups_are_refused():
    hand = Hand()
    loads = [hand.load_west(groups=2), hand.load_north(groups=2)]
    first = hand.compute(loads, FIRST, WS_MODE, groups=2)
    loads = [hand.load_west([first], group=4, groups=4), hand.load_north([first], group=4, groups=4)]
    hand.store([hand.compute(loads, LAST, WS_MODE, group=4, groups=4)], words=4)
    refused(hand.program(), "5: group must be 2, where the tile at out 0 of instruction 2 (COMPUTE) ends, not 4")


def test_results_are_no_sums_to_go_on_from():
    hand = north_stays()
    hand.compute([3, 4, 6], LAST, WS_MODE, group=4, groups=4)
    refused(hand.program(), "7: the tile at out 0 of instruction 5 (COMPUTE) must be sums that are not complete, not results")


def test_a_kernel_on_sums_is_refused():
    hand = sums_in_dram()
    hand.vector([6], words=4)
    hand.after[7].remove(6)
    hand.after[7].append(9)
    hand.records.insert(7, hand.records.pop(9))
    hand.after.insert(7, hand.after.pop(9))
    hand.after[8] = [4, 5, 7]
    hand.after[9] = [8]
    refused(hand.program(), "7: the tile at out 0 of instruction 6 (LOAD) must be complete results, not sums to go on from")


def test_an_array_tile_that_does_not_go_on_is_refused():
    hand = outputs_stay_in_parts()
    hand.records[2]["flags"], hand.records[2]["words"] = BOTH, 2
    refused(
        hand.program(), "5: COMPUTE without FIRST must go on with the array tile of the COMPUTE before it, not with another"
    )


@pytest.mark.parametrize("fields", [{"repeat": 1}, {"rows": 3}, {"cols": 1}, {"groups": 3}, {"object": WS_MODE, "words": 4}])
def test_an_array_tile_goes_on_with_its_own(fields):
    hand = outputs_stay_in_parts()
    for name, value in fields.items():
        hand.records[2][name] = value
    refused(
        hand.program(), "5: COMPUTE without FIRST must go on with the array tile of the COMPUTE before it, not with another"
    )


def test_an_array_tile_that_is_given_up_is_refused():
    hand = Hand()
    loads = [hand.load_west(groups=4), hand.load_north(groups=4)]
    hand.compute(loads, FIRST, groups=4)
    refused(hand.program(), "2: COMPUTE without LAST must be gone on with by the COMPUTE after it, not be left in the array")


# Races against a slow twin: which instructions use which words, and every pair compared.


def long_program(tiles, west_places, out_places):
    """Products one after another whose tiles take turns at some places of the buffers."""
    hand, computes, stores = Hand(), [], []
    for tile in range(tiles):
        west, out = tile % west_places, tile % out_places
        before = [computes[tile - west_places]] if tile >= west_places else []
        loads = [
            hand.load_west(before, west=32 * west, repeat=tile % 2),
            hand.load_north(before, north=16 * west, repeat=tile % 2),
        ]
        free = [stores[tile - out_places]] if tile >= out_places else []
        place = {"west": 32 * west, "north": 16 * west, "out": 2 * out, "repeat": tile % 2}
        computes.append(hand.compute([*loads, *free], **place))
        relu = hand.vector([computes[-1]], out=2 * out, repeat=tile % 2)
        stores.append(hand.store([relu], out=2 * out, repeat=tile % 2))
    return hand


def naive_uses(table):
    """(buffer, first word, words, writes) of every instruction of `long_program`."""
    uses = []
    for one in table:
        west = ("west", int(one["west"]), 32)
        north = ("north", int(one["north"]), 16)
        out = ("out", int(one["out"]), 2)
        if one["opcode"] == LOAD:
            uses.append([(*(west if one["object"] == WEST_VIEW else north), True)])
        elif one["opcode"] == COMPUTE:
            uses.append([(*west, False), (*north, False), (*out, True)])
        else:
            uses.append([(*out, one["opcode"] == VECTOR)])
    return uses


def naive_has_race(program):
    """Whether two instructions of different engines use the same words, one writing, with no way by tokens between them."""
    table, needs = program.instructions, resolve_tokens(program)
    before = [set() for _ in table]
    for place, one in enumerate(table):
        for engine in Engine:
            ranks = np.flatnonzero(table["opcode"] == engine)
            known = set(ranks[: needs[place, engine]].tolist())
            if engine == one["opcode"]:
                known = set(ranks[ranks < place].tolist())
            before[place] |= known.union(*(before[earlier] for earlier in known))
    uses = naive_uses(table)
    for first, second in combinations(range(len(table)), 2):
        if table["opcode"][first] == table["opcode"][second] or first in before[second]:
            continue
        for left in uses[first]:
            for right in uses[second]:
                overlap = left[0] == right[0] and left[1] < right[1] + right[2] and right[1] < left[1] + left[2]
                if overlap and (left[3] or right[3]):
                    return True
    return False


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 2), st.integers(1, 3), st.data())
def test_races_are_those_that_a_comparison_of_all_pairs_finds(tiles, west_places, out_places, data):
    hand = long_program(tiles, west_places, out_places)
    waits = [(place, earlier) for place, after in enumerate(hand.after) for earlier in after]
    for place, earlier in data.draw(st.lists(st.sampled_from(waits), max_size=3, unique=True)):
        hand.after[place] = [other for other in hand.after[place] if other != earlier]
    program = hand.program()
    if naive_has_race(program):
        with pytest.raises(ScheduleError, match="must be ordered by tokens with"):
            verify(program)
    else:
        verify(program)


@settings(deadline=None)
@given(st.sampled_from(list(CASES.values())), st.data())
def test_any_change_of_a_field_is_refused_or_harmless(case, data):
    program = case().program()
    if len(program.instructions):
        place = data.draw(st.integers(0, len(program.instructions) - 1))
        name = data.draw(st.sampled_from(INSTRUCTION.names))
        most = 2 ** (8 * INSTRUCTION[name].itemsize) - 1
        program.instructions[name][place] = data.draw(st.one_of(st.integers(0, 9), st.integers(0, most)))
    problem = problem_of(program)
    assert re.fullmatch(r"(step\.nmp: instruction \d+: .*)?", problem) is not None


def test_engines_are_as_the_kernels_count_them():
    named = [kernels.LOAD, kernels.STORE, kernels.COMPUTE, kernels.PRUNE, kernels.VECTOR, kernels.ENGINES]
    assert named == [LOAD, STORE, COMPUTE, PRUNE, VECTOR, len(Engine)]
    assert [kernels.FIRST, kernels.LAST] == [FIRST, LAST]


def test_tile_kernels_of_more_work_than_can_be_counted_are_refused():
    hand = outputs_stay()
    tile, streams = tables().kernels
    heavy = tile.model_copy(update={"lane_ops": 2**50})
    message = "5: rows times cols must make less than 2**53 lane operations of kernel 0, not 4 times 2"
    refused(hand.program(kernels=(heavy, streams)), message)
