from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_programs import instruction, random_program

from accel.access import Access, Axis
from accel.api import compile_step
from accel.dram import DEVICES, resolve_dram
from accel.presets import preset
from accel.program import Engine, Kernel, Program, Site, Stage, Tables, Tensor, Update, View
from accel.sim.machine import run_program
from accel.timing.dram import Stream, beats
from accel.timing.jobs import jobs_of
from accel.timing.transfers import Layout, Tile, layout_of, tile_stream, transfer_beats

ARCH, DEVICE = preset("test"), DEVICES["ddr-200"]
LOAD, STORE, VECTOR, UPDATE = Engine.LOAD, Engine.STORE, Engine.VECTOR, Engine.UPDATE
TENSORS = (
    Tensor(name="x", address=0, bytes=4096, format="fp16"),
    Tensor(name="compact", address=4096, bytes=4096, format="compact"),
    Tensor(name="y", address=8192, bytes=2048, format="fp16"),
)


def tables(views=(), kernels=(), updates=()):
    sites = (Site(layer="layer", stage=Stage.FORWARD, part=""),)
    rows = {"views": tuple(views), "kernels": tuple(kernels), "updates": tuple(updates)}
    return Tables(network="net", batch=1, arch=ARCH, tensors=TENSORS, modes=(), sites=sites, **rows)


def conv(pixels=8, channels=8, step=1, taps=1, whole=None):
    """Return the access of an operand whose rows are pixels and whose k are taps and channels."""
    places = Axis(size=pixels * step, terms=((0, step), (1, 1)))
    last = Axis(size=whole or channels, terms=((2, 1),))
    return Access(axes=(places, last), rows=(pixels,), taps=(taps,), inner=(channels,))


def turned(pixels=8, channels=8):
    """Return the access of an operand whose rows are channels and whose k are pixels."""
    return Access(
        axes=(Axis(size=pixels, terms=((1, 1),)), Axis(size=channels, terms=((0, 1),))), rows=(channels,), inner=(pixels,)
    )


def operand(access=None, tensor=0, **fields):
    sizes = {"rows": 8, "groups": 2, "row_bits": 128, "group_bits": 64, "distinct": 8}
    return View(tensors=(tensor,), side="west", access=access, **{**sizes, **fields})


def results(access=None, **fields):
    return View(tensors=(0,), side="out", access=access, **{"rows": 8, "cols": 8, "elem_bits": 16, **fields})


def tile(**fields):
    return Tile(**{"row": 0, "rows": 0, "col": 0, "cols": 0, "group": 0, "groups": 0, "bytes": 0, **fields})


def stream(view, is_write=False, **fields):
    return tile_stream(layout_of(tables([view]), view), view, tile(**fields), 0, is_write)


@pytest.mark.parametrize(
    ("view", "layout"),
    [
        (operand(), Layout("k", 16, 16)),
        (operand(conv()), Layout("k", 16, 16)),
        (operand(conv(channels=6)), Layout("k", 16, 16)),  # whole words of 4 elements
        (operand(conv(channels=4, whole=16)), Layout("k", 8, 32)),  # one group of channels
        (operand(conv(step=2)), Layout("k", 16, 32)),
        (operand(conv(step=2, taps=2)), Layout("k", 16, 16)),
        (operand(conv(step=3, taps=2)), Layout("k", 16, 48)),
        (operand(turned()), Layout("rows", 16, 16)),
        (operand(turned(channels=16)), Layout("rows", 32, 32)),
        (operand(conv(), tensor=1, row_bits=76), Layout("k", 10, 10)),  # compact: not element by element
        (results(), Layout("cols", 16, 16)),
        (results(pad_cols=4, elem_bits=32), Layout("cols", 48, 48)),
        (
            results(Access(axes=(Axis(size=8, terms=((0, 1),)), Axis(size=16, terms=((1, 1),))), rows=(8,), inner=(16,))),
            Layout("cols", 32, 32),
        ),
        (
            results(Access(axes=(Axis(size=8, terms=((1, 1),)), Axis(size=16, terms=((0, 1),))), rows=(16,), inner=(8,))),
            Layout("rows", 32, 32),
        ),
    ],
)
def test_a_view_lies_as_its_access_says(view, layout):
    assert layout_of(tables([view]), view) == layout


def test_several_tensors_side_by_side_lie_as_their_sizes_say():
    view = operand(conv(step=2)).model_copy(update={"tensors": (0, 2)})
    assert layout_of(tables([view]), view) == Layout("k", 16, 16)


def test_whole_pixels_are_one_run():
    assert stream(operand(conv()), rows=5, groups=2, bytes=80) == Stream(0, 80, 80, 80, False)


def test_pixels_apart_are_runs_of_a_pixel():
    assert stream(operand(conv(step=2)), rows=5, groups=2, bytes=80) == Stream(0, 80, 16, 32, False)


def test_a_chunk_of_k_is_a_run_in_each_row():
    assert stream(operand(conv()), rows=5, groups=1, bytes=40) == Stream(0, 40, 8, 16, False)


def test_a_chunk_of_whole_taps_is_one_run():
    view = operand(conv(taps=3), groups=6, row_bits=128)
    assert stream(view, rows=5, groups=4, bytes=160) == Stream(0, 160, 160, 160, False)


def test_some_channels_of_all_pixels_are_a_run_in_each_pixel():
    view = operand(turned(channels=16), rows=16, distinct=16)
    assert stream(view, rows=4, groups=2, bytes=64) == Stream(0, 64, 8, 32, False)
    assert stream(view, rows=16, groups=2, bytes=256) == Stream(0, 256, 256, 256, False)


def test_rows_that_share_elements_are_read_once():
    view = operand(turned(channels=16), rows=144, distinct=4)
    assert stream(view, rows=100, groups=2, bytes=64).run_bytes == 8


def test_results_are_a_run_in_each_row():
    assert stream(results(), True, rows=3, cols=4, bytes=24) == Stream(0, 24, 8, 16, True)
    assert stream(results(), True, rows=3, cols=8, bytes=48) == Stream(0, 48, 48, 48, True)


def test_results_of_a_swapped_product_are_a_run_in_each_column():
    access = Access(axes=(Axis(size=8, terms=((1, 1),)), Axis(size=16, terms=((0, 1),))), rows=(16,), inner=(8,))
    assert stream(results(access, rows=16), True, rows=4, cols=3, bytes=24) == Stream(0, 24, 8, 32, True)


def beats_of(*instructions, device=DEVICE, **rows):
    return transfer_beats(Program(tables(**rows), np.concatenate(instructions)), device).tolist()


def test_a_tile_takes_what_its_runs_take():
    found = beats_of(
        instruction(LOAD, rows=8, groups=2, bytes=128),
        instruction(LOAD, rows=8, groups=1, bytes=64),
        instruction(STORE, object=1, rows=8, cols=4, bytes=64),
        views=[operand(conv()), results()],
    )
    streams = Stream(0, 128, 128, 128, False), Stream(0, 64, 8, 16, False), Stream(0, 64, 8, 16, True)
    assert found == [beats(DEVICE, ARCH, (one,)) for one in streams]


def test_a_tile_starts_where_its_rows_do():
    view = operand(conv(pixels=64), rows=64, distinct=64)
    found = beats_of(*(instruction(LOAD, row=row, rows=2, groups=2, bytes=32) for row in range(4)), views=[view])
    one, two = (beats(DEVICE, ARCH, (Stream(start, 32, 32, 32, False),)) for start in (0, 16))
    assert found == [one, two, one, two]
    assert two > one


def kernel(size, reads=(0,), writes=(2,), tile=False):
    return Kernel(op="op", lane_ops=1, bytes=size, transfers=0 if tile else 2, reads=reads, writes=writes, tile=tile)


def test_a_kernel_moves_its_tensors_in_turns():
    found = beats_of(instruction(VECTOR), kernels=[kernel(6144)])
    assert found == [beats(DEVICE, ARCH, (Stream(0, 4096, 4096, 4096, False), Stream(2**40 + 8192, 2048, 2048, 2048, True)))]


def test_a_kernel_that_passes_twice_reads_its_tensor_again():
    twice = beats_of(instruction(VECTOR), kernels=[kernel(8192, writes=())])
    assert twice == [beats(DEVICE, ARCH, (Stream(0, 8192, 4096, 0, False),))]


def test_a_kernel_on_tiles_moves_nothing():
    assert beats_of(instruction(VECTOR), kernels=[kernel(0, tile=True)]) == [0]


def test_an_update_reads_and_writes_its_words():
    words, elems = 5, 256  # gradient, weight and momentum read; weight and momentum written
    update = Update(weight=1, elems=elems, passes=1, sore_groups=0, bytes=4 * elems * words + 4096, reads=(2,), writes=(1,))
    found = beats_of(instruction(UPDATE), updates=[update])
    assert found[0] >= ceil((4 * elems * words + 4096) / 16 * 780 / 772)
    copies_only = replace_bytes(update, 4096)
    assert beats_of(instruction(UPDATE), updates=[copies_only])[0] < found[0]


def replace_bytes(update, size):
    return update.model_copy(update={"bytes": size})


@given(st.integers(0, 2**32))
def test_beats_are_those_of_instructions_with_bytes(seed):
    program = random_program(np.random.default_rng(seed))
    jobs = jobs_of(program, DEVICE.replace(clock_hz=1e6))
    assert ((jobs.beats > 0) == (jobs.bytes > 0)).all()
    flat = jobs_of(program)
    for field in set(jobs._fields) - {"beats"}:
        assert getattr(jobs, field).tolist() == getattr(flat, field).tolist()


def test_a_device_of_twice_the_clock_never_makes_a_transfer_longer():
    program = compile_step("mlp", "edge-kv260", batch=4)
    device = resolve_dram("banks", program.tables.arch)
    slow, fast = (jobs_of(program, device.replace(clock_hz=clock)).beats for clock in (1200e6, 2400e6))
    assert (fast <= slow).all()
    assert (fast[slow > 1] < slow[slow > 1]).any()


def test_no_transfer_is_faster_than_the_peak():
    program = compile_step("mlp", "edge-kv260", batch=4)
    arch = program.tables.arch
    device = resolve_dram("banks", arch)
    jobs = jobs_of(program, device)
    least = jobs.bytes / (arch.dram_bytes_per_second / arch.clock_hz)
    assert (jobs.beats >= np.floor(least)).all()


def test_the_machine_runs_on_the_beats_of_the_device():
    program = compile_step("mlp", "edge-kv260", batch=4)
    device = resolve_dram("banks", program.tables.arch)
    timing = run_program(program, device)
    assert timing.jobs.beats.tolist() == jobs_of(program, device).beats.tolist()
    assert timing.bytes_moved == run_program(program).bytes_moved
