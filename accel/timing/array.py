"""Cycles of a run of the PE array: docs/timing.md section 1 as closed forms, O(1), all integers.

A *run* is `count` equal products back to back. Its cycles are the sum of its tiles' slots, one tile starting when the slot of
the one before ends, plus the *ends*: what the first tile waits for and the last one still needs. Sizes are at least 1, products
of sizes below 2**60.
"""

from __future__ import annotations

from accel.jit import kernel

PSUM_TURN_CYCLES = 3
"""Bottom register, write and read of the psum buffer."""


@kernel
def ceil_div(value: int, divisor: int) -> int:
    """Return `value / divisor` rounded up."""
    return (value + divisor - 1) // divisor


@kernel
def _rest(value: int, whole: int) -> int:
    """Return the size, 1..whole, of the last part when `value` is cut into parts of `whole`."""
    return (value - 1) % whole + 1


@kernel
def os_tile_cycles(lanes: int, steps: int, rows_used: int, drain_lanes: int) -> int:
    """Return the slot of an OS tile of `rows_used` PE rows: the compute or the drain of the tile before, whichever is longer.

    The words of the tile before must have passed the rows that finish sums in this one.
    """
    return lanes * max(steps, ceil_div(rows_used, drain_lanes))


@kernel
def os_compute_cycles(rows: int, cols: int, lanes: int, row_lanes: int, dim_m: int, dim_n: int, steps: int, count: int) -> int:
    """Return the compute cycles of all tiles of an OS run: the sum of the slots if the drain never held one up."""
    tiles = ceil_div(dim_m, rows * row_lanes) * ceil_div(dim_n, cols * (lanes // row_lanes))
    return count * tiles * lanes * steps


@kernel
def os_slot_cycles(
    rows: int, cols: int, lanes: int, row_lanes: int, drain_lanes: int, dim_m: int, dim_n: int, steps: int, count: int
) -> int:
    """Return the sum of the slots of all tiles of an OS run."""
    m_tiles = ceil_div(dim_m, rows * row_lanes)
    n_tiles = ceil_div(dim_n, cols * (lanes // row_lanes))
    full = os_tile_cycles(lanes, steps, rows, drain_lanes)
    last = os_tile_cycles(lanes, steps, min(rows, _rest(dim_m, rows * row_lanes)), drain_lanes)
    return count * n_tiles * ((m_tiles - 1) * full + last)


@kernel
def os_end_cycles(
    rows: int,
    cols: int,
    lanes: int,
    row_lanes: int,
    drain_lanes: int,
    multiplier_latency: int,
    dim_m: int,
    dim_n: int,
    steps: int,
) -> int:
    """Return the cycles of an OS run beyond its slots: pipes, the way across, all of the way down the drain chains.

    The slot of the first tile, which nothing came before, counts as an end that is less than nothing.
    """
    rows_of_first, rows_of_last = min(rows, dim_m), min(rows, _rest(dim_m, rows * row_lanes))
    columns = _last_columns(cols, lanes // row_lanes, dim_n, os_tile_cycles(lanes, steps, rows_of_last, drain_lanes))
    way_down = rows + lanes * (ceil_div(rows, drain_lanes) + 1) - 1
    unused = os_tile_cycles(lanes, steps, rows_of_first, drain_lanes) - lanes * steps
    return multiplier_latency + way_down + columns - unused


@kernel
def os_run_cycles(
    rows: int,
    cols: int,
    lanes: int,
    row_lanes: int,
    drain_lanes: int,
    multiplier_latency: int,
    dim_m: int,
    dim_n: int,
    steps: int,
    count: int,
) -> int:
    """Return the cycles of `count` OS products (dim_m, dim_n) of `steps` = groups * keep steps of k each."""
    slots = os_slot_cycles(rows, cols, lanes, row_lanes, drain_lanes, dim_m, dim_n, steps, count)
    return slots + os_end_cycles(rows, cols, lanes, row_lanes, drain_lanes, multiplier_latency, dim_m, dim_n, steps)


@kernel
def ws_tile_cycles(rows: int, lanes: int, row_lanes: int, rows_of_m: int, groups: int, keep: int) -> int:
    """Return the slot of a WS tile that streams `rows_of_m` rows: the stream or the way down the array, whichever is longer.

    `groups` are those of the whole product: with more than `rows` of them sums come round again through the psum buffer.
    """
    return _ws_tile_cycles(rows, lanes, row_lanes, rows_of_m, keep, ws_turn_cycles(rows, groups))


@kernel
def ws_turn_cycles(rows: int, groups: int) -> int:
    """Return what a WS tile's slot has for the way through the psum buffer, in a product over `groups` of k."""
    return PSUM_TURN_CYCLES if groups > rows else 0


@kernel
def _ws_tile_cycles(rows: int, lanes: int, row_lanes: int, rows_of_m: int, keep: int, turn_cycles: int) -> int:
    return max(ceil_div(rows_of_m, row_lanes) * keep * lanes, rows * keep * lanes + turn_cycles)


@kernel
def ws_compute_cycles(
    rows: int, cols: int, lanes: int, row_lanes: int, dim_m: int, dim_n: int, groups: int, keep: int, m_chunk: int, count: int
) -> int:
    """Return the cycles in which the streams of a WS run flow: the sum of the slots if no tile waited for the one before."""
    chunk = min(m_chunk, dim_m)
    chunks = ceil_div(dim_m, chunk)
    stream = (chunks - 1) * ceil_div(chunk, row_lanes) + ceil_div(_rest(dim_m, chunk), row_lanes)
    return count * ceil_div(dim_n, cols * (lanes // row_lanes)) * ceil_div(groups, rows) * stream * keep * lanes


@kernel
def ws_slot_cycles(
    rows: int, cols: int, lanes: int, row_lanes: int, dim_m: int, dim_n: int, groups: int, keep: int, m_chunk: int, count: int
) -> int:
    """Return the sum of the slots of all tiles of a WS run."""
    turn = ws_turn_cycles(rows, groups)
    return ws_slot_cycles_with_turn(rows, cols, lanes, row_lanes, dim_m, dim_n, groups, keep, m_chunk, count, turn)


@kernel
def ws_slot_cycles_with_turn(
    rows: int,
    cols: int,
    lanes: int,
    row_lanes: int,
    dim_m: int,
    dim_n: int,
    groups: int,
    keep: int,
    m_chunk: int,
    count: int,
    turn_cycles: int,
) -> int:
    """Return `ws_slot_cycles` with `turn_cycles` for the psum buffer in every slot: for a part of a larger product."""
    chunk = min(m_chunk, dim_m)
    chunks = ceil_div(dim_m, chunk)
    full = _ws_tile_cycles(rows, lanes, row_lanes, chunk, keep, turn_cycles)
    last = _ws_tile_cycles(rows, lanes, row_lanes, _rest(dim_m, chunk), keep, turn_cycles)
    return count * ceil_div(dim_n, cols * (lanes // row_lanes)) * ceil_div(groups, rows) * ((chunks - 1) * full + last)


@kernel
def ws_load_cycles(rows: int, lanes: int, row_lanes: int, keep: int) -> int:
    """Return the cycles from the first entry of a WS run at a port to its first slot: row `rows - 1` has its entries."""
    return keep * (lanes // row_lanes) + rows - 1


@kernel
def ws_end_cycles(
    rows: int,
    cols: int,
    lanes: int,
    row_lanes: int,
    multiplier_latency: int,
    dim_m: int,
    dim_n: int,
    groups: int,
    keep: int,
    m_chunk: int,
) -> int:
    """Return the cycles of a WS run beyond its slots: the first load, the pipes, and what the last stream still needs."""
    turn = ws_turn_cycles(rows, groups)
    return ws_end_cycles_with_turn(rows, cols, lanes, row_lanes, multiplier_latency, dim_m, dim_n, groups, keep, m_chunk, turn)


@kernel
def ws_end_cycles_with_turn(
    rows: int,
    cols: int,
    lanes: int,
    row_lanes: int,
    multiplier_latency: int,
    dim_m: int,
    dim_n: int,
    groups: int,
    keep: int,
    m_chunk: int,
    turn_cycles: int,
) -> int:
    """Return `ws_end_cycles` with `turn_cycles` for the psum buffer in every slot: for a part of a larger product."""
    col_lanes = lanes // row_lanes
    last_rows = _rest(dim_m, min(m_chunk, dim_m))
    slot = _ws_tile_cycles(rows, lanes, row_lanes, last_rows, keep, turn_cycles)
    columns = _last_columns(cols, col_lanes, dim_n, ceil_div(groups, rows) * slot)
    load = ws_load_cycles(rows, lanes, row_lanes, keep)
    stream = (ceil_div(last_rows, row_lanes) + rows - 1) * keep * lanes + lanes
    return load + stream - slot + multiplier_latency + columns


@kernel
def ws_run_cycles(
    rows: int,
    cols: int,
    lanes: int,
    row_lanes: int,
    multiplier_latency: int,
    dim_m: int,
    dim_n: int,
    groups: int,
    keep: int,
    m_chunk: int,
    count: int,
) -> int:
    """Return the cycles of `count` WS products (dim_m, dim_n) over `groups` of k, m in chunks of `m_chunk` rows."""
    slots = ws_slot_cycles(rows, cols, lanes, row_lanes, dim_m, dim_n, groups, keep, m_chunk, count)
    return slots + ws_end_cycles(rows, cols, lanes, row_lanes, multiplier_latency, dim_m, dim_n, groups, keep, m_chunk)


@kernel
def idle_columns(cols: int, lanes: int, row_lanes: int, dim_n: int, tile_of_n_cycles: int) -> int:
    """Return the PE columns that the last output does not wait for; the next run does, before it starts."""
    return cols - _last_columns(cols, lanes // row_lanes, dim_n, tile_of_n_cycles)


@kernel
def _last_columns(cols: int, col_lanes: int, dim_n: int, tile_of_n_cycles: int) -> int:
    """Return the PE columns that the last output waits for.

    They are those in use in the last tile of n, unless it is so short that the full tile before, which started
    `tile_of_n_cycles` earlier, ends later at the far side.
    """
    used = min(cols, _rest(dim_n, cols * col_lanes))
    return max(used, cols - tile_of_n_cycles) if dim_n > cols * col_lanes else used
