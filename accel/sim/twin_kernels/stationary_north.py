"""WS: the north operand stays in the PEs and sums pass down the columns; docs/timing.md rules 12 to 17."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.jit import kernel
from accel.sim.twin_kernels.edges import (
    ADDRESS,
    COL_LANE,
    CYCLES,
    ENTRY,
    ENTRY_COLS,
    ENTRY_OF,
    LATE,
    LOAD_PLACE,
    LOAD_ROW,
    LOST,
    MET_ROWS,
    OK,
    OPENS,
    OUT,
    OUT_COLS,
    OUT_WORDS,
    PSUM,
    PSUM_OUT,
    ROW_LANE,
    SEEN_COLS,
    STALL_CYCLES,
    TAG,
    TWICE,
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
    gather,
    has_bit,
    is_negative,
    load,
    multiply,
    pick,
    store,
    zeros_like,
)
from accel.sim.twin_kernels.walk import (
    BANK,
    IS_RUNNING,
    K_TILE,
    M_TILE,
    N_TILE,
    PRODUCT,
    SLOT,
    TOKEN,
    Walk,
    is_in_slot,
    start,
    step,
)


class Grid(NamedTuple):
    """The registers of the PEs and of the feet of the columns. A pipeline is a ring of as many registers as it is deep."""

    products: Bank
    """float32 (cols * multiplier_latency, vector_rows)."""
    sums: Bank
    """float32 (cols * lanes, pad + vector_rows): the adder's pipeline; the place before row 0 is what that row starts from."""
    addresses: Bank
    """int32 (places, vector_rows): where in their banks PEs find their entries; travels east."""
    common: Bank
    """int32 (1, places): the address if all rows have the same one, as they do in the midst of a tile, else -1."""
    values: Bank
    """float32 (cols, 2 * keep * col_lanes * vector_rows): two banks of entries for each PE; `index`, int32, has -1 for none."""
    index: Bank
    loads_left: Bank
    """int64 (1, rows): cycles for which entries may still be under way to the banks of a row."""
    bottom: Bank
    """float32 (1, cols): the registers below the last row."""
    psum_read: Bank
    """float32 (1, cols): what was read from the psum buffer."""
    psum: Bank
    """float32 (cols, partial sums): the psum buffer."""
    is_held: Bank
    """uint8 (cols, partial sums): which partial sums wait to be read."""


@kernel
def run(
    size: Size,
    row_walk: Walk,
    col_walk: Walk,
    operands: Operands,
    edges: Edges,
    grid: Grid,
    enable: NDArray[np.uint8],
    out: NDArray[np.uint32],
) -> int:
    """Run the array, given as arrays; return how it ended."""
    banks = Grid(
        bank(grid.products),
        bank(grid.sums),
        bank(grid.addresses),
        bank(grid.common),
        bank(grid.values),
        bank(grid.index),
        bank(grid.loads_left),
        bank(grid.bottom),
        bank(grid.psum_read),
        bank(grid.psum),
        bank(grid.is_held),
    )
    return _run(size, row_walk, col_walk, operand_banks(operands), edge_banks(edges), banks, bank(enable), bank(out))


@kernel
def _run(
    size: Size, row_walk: Walk, col_walk: Walk, operands: Operands, edges: Edges, grid: Grid, enable: Bank, out: Bank
) -> int:
    """Step the array until its last word is out; return how it ended."""
    start(edges.places, 0, row_walk)
    start(edges.places, 1, col_walk)
    clock, time, pending, patience, status = 0, 0, 0, 2 * size.result_mask, OK
    stage, lane = 0, 0  # where the pipelines stand: of the multiplier and of the adder
    while (edges.places[0, IS_RUNNING] == 1 or pending > 0) and patience > 0:
        clock += 1
        if clock <= size.stall_clocks and enable[0, clock - 1] == 0:  # no register takes anything
            edges.counters[0, STALL_CYCLES] += 1
            continue
        if edges.places[0, IS_RUNNING] == 0:
            patience -= 1
        pending += _record_west(size, edges, time)
        _record_north(size, col_walk, edges, time)
        for walker in range(2):
            if edges.places[walker, IS_RUNNING] == 1:
                step(edges.places, walker, row_walk if walker == 0 else col_walk)
        send_words(size, operands, edges, time)
        send_entries(size, operands, edges, time)
        _send_control(size, edges, grid, time)
        seen, fault = _step_feet(size, edges, grid, time, lane, out)
        pending -= seen
        status = max(status, fault)
        if seen > 0:
            edges.counters[0, CYCLES] = time + 1
        _step_pes(size, edges, grid, time, stage, lane)
        _load_banks(size, edges, grid, time)
        time += 1
        stage, lane = turned(stage, size.multiplier_latency), turned(lane, size.lanes)
        for col in range(size.cols):
            grid.sums[col * size.lanes + lane, size.pad - 1] = grid.psum_read[0, col]
    return LOST if pending > 0 else status


@kernel
def _record_west(size: Size, edges: Edges, time: int) -> int:
    """Note what this cycle's slot of row 0 is about; return how many words it brings to the bottom."""
    places, west, slot = edges.places, edges.west, time & size.record_mask
    west[slot, WORD_ROWS] = -1
    west[slot, PSUM] = -1
    if not is_in_slot(places, 0):
        write_line(size, edges, OPENS, time, 0)
        write_line(size, edges, ADDRESS, time, 0)
        write_line(size, edges, TAG, time, 0)
        return 0
    entry = edges.slots[ENTRY_OF, places[0, SLOT]]
    row_lane, col_lane = edges.slots[ROW_LANE, places[0, SLOT]], edges.slots[COL_LANE, places[0, SLOT]]
    first_group, row_base = places[0, K_TILE] * size.rows, places[0, M_TILE] * size.tile_rows
    row = row_base + places[0, TOKEN] * size.row_lanes + row_lane
    is_row = row < min(row_base + size.tile_rows, size.dim_m)
    out_row = places[0, PRODUCT] * size.dim_m + row
    psum = places[0, TOKEN] * size.lanes + col_lane * size.row_lanes + row_lane
    if entry == 0 and col_lane == 0:
        west[slot, WORD] = out_row * size.groups + first_group
        west[slot, WORD_ROWS] = min(size.rows, size.groups - first_group) if is_row else 0
    if entry == 0 and first_group > 0:
        west[slot, PSUM] = psum
    held = (places[0, BANK] * size.keep + entry) * size.col_lanes + col_lane
    write_line(size, edges, OPENS, time, 1 if entry == 0 else 0)
    write_line(size, edges, ADDRESS, time, held * size.vector_rows)
    if entry < size.keep - 1:
        write_line(size, edges, TAG, time, 0)
        return 0
    result, tile_col = time & size.result_mask, places[0, N_TILE] * size.cols * size.col_lanes
    is_final = first_group + size.rows >= size.groups
    edges.results[result, OUT] = out_row * size.dim_n + tile_col + col_lane * size.cols
    edges.results[result, OUT_COLS] = size.dim_n - tile_col - col_lane * size.cols if is_row else 0
    edges.results[result, SEEN_COLS] = min(size.cols, size.dim_n - tile_col)
    edges.results[result, PSUM_OUT] = -1 if is_final else psum
    write_line(size, edges, TAG, time, result + 1)
    return edges.results[result, SEEN_COLS] if is_final else 0


@kernel
def _record_north(size: Size, walk: Walk, edges: Edges, time: int) -> None:
    """Note which entry column 0 is fed in this cycle: those of a row one after the other, none until the next row's turn."""
    places, north, slot = edges.places, edges.north, time & size.record_mask
    number = places[1, SLOT]
    north[slot, ENTRY_COLS] = 0
    north[slot, LOAD_ROW] = -1
    if not is_in_slot(places, 1) or number >= size.keep * size.col_lanes:
        return
    row = places[1, TOKEN]
    group, entry, col_lane = places[1, K_TILE] * size.rows + row, number // size.col_lanes, number % size.col_lanes
    first_col = (places[1, N_TILE] * size.col_lanes + col_lane) * size.cols
    if group < size.groups:
        columns = places[1, PRODUCT] * walk.n_tiles + places[1, N_TILE]
        steps = (columns * size.groups + group) * size.keep + entry
        north[slot, ENTRY] = (steps * size.col_lanes + col_lane) * size.cols
        north[slot, ENTRY_COLS] = max(0, min(size.cols, size.dim_n - first_col))
    north[slot, MET_ROWS] = min(size.tile_rows, size.dim_m - places[1, M_TILE] * size.tile_rows)
    north[slot, LOAD_ROW] = row
    north[slot, LOAD_PLACE] = places[1, BANK] * size.keep * size.col_lanes + number


@kernel
def _send_control(size: Size, edges: Edges, grid: Grid, time: int) -> None:
    """Send control east from every row feeder at the time at which PEs need it."""
    place = time & size.west_mask
    for first_row in range(0, size.vector_rows, LANES):
        opens = told_rows(size, edges, OPENS, time, size.multiplier_latency, first_row)
        address = told_rows(size, edges, ADDRESS, time, 0, first_row)
        store(edges.opens, place, first_row, opens)
        store(grid.addresses, place, first_row, add(address, load(edges.row_numbers, 0, first_row)))
    grid.common[0, place] = grid.addresses[place, 0]
    for row in range(1, size.rows):
        if grid.addresses[place, row] != grid.addresses[place, 0] + row:
            grid.common[0, place] = -1
            break


@kernel
def _step_feet(size: Size, edges: Edges, grid: Grid, time: int, lane: int, out: Bank) -> tuple[int, int]:
    """Write what is visible at the bottom, step the psum buffer; return how many output words are visible, and any fault."""
    results, seen, fault = edges.results, 0, OK
    to_bottom = size.multiplier_latency + size.lanes + (size.rows - 1) * size.row_delay + 1
    told = (-time & size.line_mask) + to_bottom
    for col in range(size.cols):
        psum = edges.west[time + 1 - size.multiplier_latency - col & size.record_mask, PSUM]
        read = np.float32(0)
        if psum >= 0:  # of a slot that will be at the adder in the next cycle
            fault = fault if grid.is_held[col, psum] == 1 else LATE
            grid.is_held[col, psum] = 0
            read = grid.psum[col, psum]
        result, value = edges.lines[TAG, told + col] - 1, grid.bottom[0, col]
        if result >= 0 and results[result, PSUM_OUT] >= 0:
            fault = fault if grid.is_held[col, results[result, PSUM_OUT]] == 0 else LATE
            grid.is_held[col, results[result, PSUM_OUT]] = 1
            grid.psum[col, results[result, PSUM_OUT]] = value
        elif result >= 0:
            seen += col < results[result, SEEN_COLS]
            if col < results[result, OUT_COLS]:
                fault = TWICE if write_out(out, results[result, OUT] + col, value) else fault
                edges.counters[0, OUT_WORDS] += 1
        grid.bottom[0, col] = grid.sums[col * size.lanes + lane, size.pad + size.rows - 1]
        grid.psum_read[0, col] = read
    return seen, fault


@kernel
def _step_pes(size: Size, edges: Edges, grid: Grid, time: int, stage: int, lane: int) -> None:
    """Step the pipelines of every PE, the lower rows first: each may start from the sum that the row above shows."""
    vectors = size.vector_rows // LANES
    for col in range(size.cols):
        west = time - col & size.west_mask
        common = grid.common[0, west]
        for first_row in range(size.vector_rows - LANES, -1, -LANES):
            if common >= 0:
                index, values = load(grid.index, col, common + first_row), load(grid.values, col, common + first_row)
            else:
                addresses = load(grid.addresses, west, first_row)
                index, values = gather(grid.index, col, 0, addresses), gather(grid.values, col, 0, addresses)
            elements = pick(edges.words, west * vectors + first_row // LANES, 0, size.group, index)
            product = choose(is_negative(index), zeros_like(values), multiply(elements, values))
            sums, above = load(grid.sums, lane, size.pad + first_row), load(grid.sums, lane, size.pad + first_row - 1)
            begun = choose(has_bit(load(edges.opens, west, first_row), 1), above, sums)
            summand = load(grid.products, stage, first_row)
            store(grid.products, stage, first_row, product)
            store(grid.sums, lane, size.pad + first_row, add(begun, summand))
        stage, lane = stage + size.multiplier_latency, lane + size.lanes


@kernel
def _load_banks(size: Size, edges: Edges, grid: Grid, time: int) -> None:
    """Store the entries that are at their rows in this cycle: visible in the shadow bank from the next one on."""
    north, at = edges.north, -time & size.entry_mask
    for row in range(size.rows):
        if north[time - row & size.record_mask, LOAD_ROW] == row:
            grid.loads_left[0, row] = size.cols  # from now on, so long until this entry is at the last column
        if grid.loads_left[0, row] == 0:
            continue
        grid.loads_left[0, row] -= 1
        for col in range(size.cols):
            slot = time - row - col & size.record_mask
            if north[slot, LOAD_ROW] == row:
                place = north[slot, LOAD_PLACE] * size.vector_rows + row
                grid.values[col, place] = edges.values[col, at + row]
                grid.index[col, place] = edges.index[col, at + row]
