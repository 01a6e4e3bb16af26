"""OS: the sums stay in the PEs and leave by drain chains; docs/timing.md rules 6 to 11."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.jit import kernel
from accel.sim.twin_kernels.edges import (
    COL_LANE,
    COLLIDED,
    CYCLES,
    ENTRY,
    ENTRY_COLS,
    ENTRY_OF,
    LOST,
    MET_ROWS,
    OK,
    OPENS,
    OUT,
    OUT_COLS,
    OUT_ROWS,
    OUT_WORDS,
    ROW_LANE,
    SEEN_COLS,
    STALL_CYCLES,
    TAG,
    TWICE,
    USED_ROWS,
    WORD,
    WORD_ROWS,
    Edges,
    Operands,
    Size,
    edge_banks,
    operand_banks,
    send_entries,
    send_words,
    told_rows,
    turned,
    write_line,
    write_out,
)
from accel.sim.twin_kernels.vector import (
    LANES,
    Bank,
    add,
    bank,
    choose,
    exceeds,
    has_bit,
    is_negative,
    load,
    multiply,
    pick,
    store,
    zeros_like,
)
from accel.sim.twin_kernels.walk import IS_RUNNING, M_TILE, N_TILE, PRODUCT, SLOT, TOKEN, Walk, is_in_slot, start, step


class Grid(NamedTuple):
    """The registers of the PEs. A pipeline is a ring of as many registers as it is deep."""

    products: Bank
    """float32 (cols * multiplier_latency, vector_rows)."""
    sums: Bank
    """float32 (cols * lanes, vector_rows): the adder's pipeline."""
    captures: Bank
    """int32 (places, vector_rows): with which PEs hand their sums to their chains; travels east."""
    chains: Bank
    """float32 (cols * depth, pad + vector_rows), depth = lanes + drain_lanes: behind each row its own `lanes + 1` registers,
    then one of each row below, down to the next row of the same chain."""
    tags: Bank
    """int32 (depth, pad + vector_rows): what is in the chains of column 0: its slot's tag plus its row; 0 is nothing."""
    feet: Bank
    """int32 (places, drain_lanes): tags at the bottom; they travel east."""
    collisions: Bank
    """int32 (1, vector_rows): tags that a captured sum replaced; all 0 if the contract holds."""


@kernel
def run(
    size: Size, walk: Walk, operands: Operands, edges: Edges, grid: Grid, enable: NDArray[np.uint8], out: NDArray[np.uint32]
) -> int:
    """Run the array, given as arrays; return how it ended."""
    banks = Grid(
        bank(grid.products),
        bank(grid.sums),
        bank(grid.captures),
        bank(grid.chains),
        bank(grid.tags),
        bank(grid.feet),
        bank(grid.collisions),
    )
    status = _run(size, walk, operand_banks(operands), edge_banks(edges), banks, bank(enable), bank(out))
    return COLLIDED if grid.collisions.any() else status  # first: it is why words are lost


@kernel
def _run(size: Size, walk: Walk, operands: Operands, edges: Edges, grid: Grid, enable: Bank, out: Bank) -> int:
    """Step the array until its last word is out; return how it ended."""
    start(edges.places, 0, walk)
    clock, time, pending, patience, is_twice, feet_left = 0, 0, 0, 2 * size.result_mask, False, 0
    stage, lane, place = 0, 0, 0  # where the pipelines stand: of the multiplier, of the adder, of the chains
    while (edges.places[0, IS_RUNNING] == 1 or pending > 0) and patience > 0:
        clock += 1
        if clock <= size.stall_clocks and enable[0, clock - 1] == 0:  # no register takes anything
            edges.counters[0, STALL_CYCLES] += 1
            continue
        if edges.places[0, IS_RUNNING] == 1:
            pending += _record(size, walk, edges, time)
            step(edges.places, 0, walk)
        else:
            _record_nothing(size, edges, time)
            patience -= 1
        send_words(size, operands, edges, time)
        send_entries(size, operands, edges, time)
        _send_control(size, edges, grid, time)
        feet_left = size.cols if _tags_at_feet(size, grid, time, place) else feet_left - 1
        if feet_left > 0:
            seen, is_again = _look_at_feet(size, edges, grid, time, place, out)
            pending -= seen
            is_twice |= is_again
            if seen > 0:
                edges.counters[0, CYCLES] = time + 1
        _step_tags(size, edges, grid, time, place)
        _step_pes(size, edges, grid, time, stage, lane, place)
        time += 1
        stage = turned(stage, size.multiplier_latency)
        lane = turned(lane, size.lanes)
        place = turned(place, size.lanes + size.drain_lanes)
    if pending > 0:
        return LOST
    if is_twice:
        return TWICE
    return OK


@kernel
def _record_nothing(size: Size, edges: Edges, time: int) -> None:
    """Note that there is no slot in this cycle."""
    slot = time & size.record_mask
    edges.west[slot, WORD_ROWS] = -1
    edges.north[slot, ENTRY_COLS] = 0
    write_line(size, edges, OPENS, time, 0)
    write_line(size, edges, USED_ROWS, time, 0)


@kernel
def _record(size: Size, walk: Walk, edges: Edges, time: int) -> int:
    """Note what this cycle's slot is about; return how many words it brings to the bottom."""
    places, west, north, slot = edges.places, edges.west, edges.north, time & size.record_mask
    if not is_in_slot(places, 0):
        _record_nothing(size, edges, time)
        return 0
    entry = edges.slots[ENTRY_OF, places[0, SLOT]]
    row_lane, col_lane = edges.slots[ROW_LANE, places[0, SLOT]], edges.slots[COL_LANE, places[0, SLOT]]
    group, product = places[0, TOKEN], places[0, PRODUCT]
    row_base = places[0, M_TILE] * size.tile_rows
    col_base = places[0, N_TILE] * size.cols * size.col_lanes + col_lane * size.cols
    rows_left, cols_left = size.dim_m - row_base - row_lane * size.rows, size.dim_n - col_base
    out_row = product * size.dim_m + row_base + row_lane * size.rows
    west[slot, WORD] = out_row * size.groups + group
    west[slot, WORD_ROWS] = max(0, min(rows_left, size.rows)) if entry == 0 and col_lane == 0 else -1
    steps = ((product * walk.n_tiles + places[0, N_TILE]) * size.groups + group) * size.keep + entry
    north[slot, ENTRY] = (steps * size.col_lanes + col_lane) * size.cols
    north[slot, ENTRY_COLS] = max(0, min(cols_left, size.cols)) if row_lane == 0 else -1
    north[slot, MET_ROWS] = min(size.dim_m - row_base, size.tile_rows)
    write_line(size, edges, OPENS, time, 1 if group == 0 and entry == 0 else 0)
    if group < size.groups - 1 or entry < size.keep - 1:
        write_line(size, edges, USED_ROWS, time, 0)
        return 0
    used_rows, result = min(size.rows, size.dim_m - row_base), time & size.result_mask
    edges.results[result, OUT] = out_row * size.dim_n + col_base
    edges.results[result, OUT_ROWS] = rows_left
    edges.results[result, OUT_COLS] = cols_left
    edges.results[result, SEEN_COLS] = min(size.cols, cols_left + col_lane * size.cols)
    write_line(size, edges, USED_ROWS, time, used_rows)
    write_line(size, edges, TAG, time, result * size.vector_rows + 1)
    return int(used_rows * edges.results[result, SEEN_COLS])


@kernel
def _send_control(size: Size, edges: Edges, grid: Grid, time: int) -> None:
    """Send control east from every row feeder at the time at which PEs need it."""
    place, to_adder = time & size.west_mask, size.multiplier_latency
    to_sum = to_adder + size.lanes
    for first_row in range(0, size.vector_rows, LANES):
        rows = load(edges.row_numbers, 0, first_row)
        store(edges.opens, place, first_row, told_rows(size, edges, OPENS, time, to_adder, first_row))
        used_rows = told_rows(size, edges, USED_ROWS, time, to_sum, first_row)
        tags = add(told_rows(size, edges, TAG, time, to_sum, first_row), rows)
        store(grid.captures, place, first_row, choose(exceeds(used_rows, rows), tags, zeros_like(rows)))


@kernel
def _tags_at_feet(size: Size, grid: Grid, time: int, place: int) -> bool:
    """Take down which words are at the bottom of column 0's chains; return whether there are any."""
    is_any = False
    for chain in range(size.drain_lanes):  # that of the bottom row, of the row above it, ...
        tag = grid.tags[_bottom(size, chain, place), size.pad + size.rows - 1 - chain]
        grid.feet[time & size.west_mask, chain] = tag
        is_any |= tag > 0
    return is_any


@kernel
def _bottom(size: Size, chain: int, place: int) -> int:
    """Return the place at which the word is that left its row `chain` cycles ago, having passed as many rows below."""
    place += size.drain_lanes - 1 - chain
    depth = size.lanes + size.drain_lanes
    return place - depth if place >= depth else place


@kernel
def _look_at_feet(size: Size, edges: Edges, grid: Grid, time: int, place: int, out: Bank) -> tuple[int, bool]:
    """Write the results visible at the bottom; return how many words are and whether a result came twice."""
    depth, results, seen, is_twice = size.lanes + size.drain_lanes, edges.results, 0, False
    for chain in range(size.drain_lanes):
        bottom = _bottom(size, chain, place)
        for col in range(size.cols):
            tag = grid.feet[time - col & size.west_mask, chain] - 1
            if tag < 0:
                continue
            result = tag // size.vector_rows
            row = tag - result * size.vector_rows
            seen += col < results[result, SEEN_COLS]
            if row < results[result, OUT_ROWS] and col < results[result, OUT_COLS]:
                value = grid.chains[col * depth + bottom, size.pad + size.rows - 1 - chain]
                is_twice |= write_out(out, results[result, OUT] + row * size.dim_n + col, value)
                edges.counters[0, OUT_WORDS] += 1
    return seen, is_twice


@kernel
def _step_tags(size: Size, edges: Edges, grid: Grid, time: int, place: int) -> None:
    """Step the tags beside the chains of column 0; a tag that a sum replaces is kept as evidence."""
    west = time & size.west_mask
    for first_row in range(size.vector_rows - LANES, -1, -LANES):
        captures, above = load(grid.captures, west, first_row), load(grid.tags, place, size.pad + first_row - size.drain_lanes)
        is_captured, before = exceeds(captures, zeros_like(captures)), load(grid.collisions, 0, first_row)
        is_lost = exceeds(choose(is_captured, above, before), before)
        store(grid.collisions, 0, first_row, choose(is_lost, above, before))
        store(grid.tags, place, size.pad + first_row, choose(is_captured, captures, above))


@kernel
def _step_pes(size: Size, edges: Edges, grid: Grid, time: int, stage: int, lane: int, place: int) -> None:
    """Step every register of every PE, the lower rows first: each takes what the row above showed."""
    at, vectors = -time & size.entry_mask, size.vector_rows // LANES
    for col in range(size.cols):
        west = time - col & size.west_mask
        for first_row in range(size.vector_rows - LANES, -1, -LANES):
            index, values = load(edges.index, col, at + first_row), load(edges.values, col, at + first_row)
            elements = pick(edges.words, west * vectors + first_row // LANES, 0, size.group, index)
            product = choose(is_negative(index), zeros_like(values), multiply(elements, values))
            sums, summand = load(grid.sums, lane, first_row), load(grid.products, stage, first_row)
            begun = choose(has_bit(load(edges.opens, west, first_row), 1), zeros_like(sums), sums)
            captures = load(grid.captures, west, first_row)
            above = load(grid.chains, place, size.pad + first_row - size.drain_lanes)
            store(grid.products, stage, first_row, product)
            store(grid.chains, place, size.pad + first_row, choose(exceeds(captures, zeros_like(captures)), sums, above))
            store(grid.sums, lane, first_row, add(begun, summand))
        stage, lane, place = stage + size.multiplier_latency, lane + size.lanes, place + size.lanes + size.drain_lanes
