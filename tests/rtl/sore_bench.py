"""SORE in Verilator, driven by cocotb: many random groups against the model, with stalls on both sides and without any."""

from __future__ import annotations

import os
import random
from itertools import count

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge
from stream_rules import StreamRules

from accel.rtl.sore import Sore, SoreParameters, sore_model

PARAMETERS = SoreParameters(group=int(os.environ["SORE_GROUP"]))
GROUPS = int(os.environ["SORE_GROUPS"])
SEED = int(os.environ["COCOTB_RANDOM_SEED"])
# What often ties: zeros of both signs, subnormals, one, infinities, NaNs of several payloads.
SPECIAL = np.array([0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x3C00, 0xBC00, 0x7C00, 0xFC00, 0x7C01, 0xFE00, 0x7FFF], np.uint16)


def groups(rng, number):
    """Return values, mask and keep of `number` groups, half of them of special values alone, a quarter with padding."""
    group = PARAMETERS.group
    values = rng.integers(0, 1 << 16, (number, group)).astype(np.uint16)
    values[::2] = rng.choice(SPECIAL, (len(values[::2]), group))
    elements = np.where(rng.random(number) < 0.25, rng.integers(0, group + 1, number), group)
    return values, np.arange(group) < elements[:, None], rng.integers(0, group + 1, number)


def to_words(values, mask, keep):
    """Return groups as the bits of the payload: values, mask, keep, the first lowest."""
    group = PARAMETERS.group
    masks = (mask.astype(np.int64) << np.arange(group)).sum(axis=1)
    rows = values.astype("<u2")
    for row, bits, kept in zip(rows, masks.tolist(), keep.tolist(), strict=True):
        yield int.from_bytes(row.tobytes(), "little") | bits << 16 * group | kept << 17 * group


def from_entries(entries):
    """Return entries as the bits of the payload."""
    width = 17 + PARAMETERS.index_bits
    slots = entries.value.astype(np.int64) | entries.index << 16 | entries.valid.astype(np.int64) << (width - 1)
    return [sum(slot << width * place for place, slot in enumerate(row)) for row in slots.tolist()]


async def drive(dut, words, stall_frac):
    """Send `words`, return what comes out and the cycles of the transfers in and out; pause on both sides at random.

    Everything happens at the falling edge: all outputs are registers, so what they show there holds at the next rising edge.
    """
    rng, rules, results = random.Random(SEED), StreamRules("o"), []
    cycles_in, cycles_out, offered = [], [], False
    for cycle in count(0):
        await FallingEdge(dut.clk)
        if not offered and len(cycles_in) < len(words) and rng.random() >= stall_frac:
            offered = True
            dut.i__payload.value = words[len(cycles_in)]
        dut.i__valid.value = offered
        take = rng.random() >= stall_frac
        dut.o__ready.value = take
        if offered and dut.i__ready.value:
            cycles_in.append(cycle)
            offered = False
        valid = bool(dut.o__valid.value)
        payload = dut.o__payload.value.to_unsigned() if valid else None
        if rules.observe(valid, take, payload):
            results.append(payload)
            cycles_out.append(cycle)
            if len(results) == len(words):
                return results, cycles_in, cycles_out


async def compare(dut, groups_count, stall_frac):
    """Run random groups and compare every one with the model; return the cycles of the transfers in and out."""
    batch = groups(np.random.default_rng(SEED), groups_count)
    dut.i__valid.value = 0
    dut.o__ready.value = 0
    dut.rst.value = 1
    cocotb.start_soon(Clock(dut.clk, 2, "step").start())
    await FallingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    results, cycles_in, cycles_out = await drive(dut, list(to_words(*batch)), stall_frac)
    for number, (result, expected) in enumerate(zip(results, from_entries(sore_model(*batch)), strict=True)):
        group = [field[number].tolist() for field in batch]
        assert result == expected, f"group {number} {group}: {result:#x} instead of {expected:#x} (seed {SEED})"
    return cycles_in, cycles_out


@cocotb.test()
async def groups_with_stalls_on_both_sides(dut):
    await compare(dut, GROUPS, stall_frac=0.2)


@cocotb.test()
async def groups_back_to_back(dut):
    cycles_in, cycles_out = await compare(dut, GROUPS // 10, stall_frac=0.0)
    assert cycles_in == list(range(len(cycles_in)))
    assert cycles_out == [cycle + Sore.LATENCY for cycle in cycles_in]
