"""What the shipped bench of one PE feeds it cycle by cycle, and what must be at its outputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from accel.golden.numeric import Float16s, add, bits, multiply
from accel.rtl.parameters import ArrayParameters
from accel.rtl.vectors import SEED, Rng, numbers

_TILES = 12
_SPECIALS_FRAC = 0.01


class PeVectors(NamedTuple):
    """The ports of a PE over time."""

    inputs: list[dict[str, int]]
    """For each cycle the values of ports, named without `i_`; those left out are 0."""
    drain: dict[int, int]
    """By cycle, `o_drain`."""
    sum: dict[int, int]
    """By cycle, `o_sum`."""


def pe_vectors(parameters: ArrayParameters, seed: int = SEED) -> PeVectors:
    """Return sums in both dataflows as far as they are built, tile after tile without a gap."""
    driver = _Driver(parameters, np.random.default_rng(seed))
    for dataflow in parameters.dataflows:
        driver.run_os() if dataflow == "OS" else driver.run_ws()
    return PeVectors(driver.inputs, driver.drain, driver.sum)


class _Driver:
    """Fills the sheet by docs/timing.md rules 1 to 5, 9 and 15: operands at the ports in cycle t, control when it is needed."""

    def __init__(self, parameters: ArrayParameters, rng: Rng) -> None:
        self.parameters, self.rng = parameters, rng
        self.inputs: list[dict[str, int]] = []
        self.drain: dict[int, int] = {}
        self.sum: dict[int, int] = {}

    def run_os(self) -> None:
        """Sum tile after tile; in every cycle the chain takes a sum that ends, or else the word from the north."""
        lanes = self.parameters.adder_latency
        begin, start = len(self.inputs), len(self.inputs)
        captured: dict[int, int] = {}
        for number in range(_TILES):
            captured |= self._os_tile(start, 1 + number, number % 2 * _SPECIALS_FRAC)
            start += (1 + number) * lanes
        end = start + self.parameters.multiplier_latency + 2 * lanes
        for cycle in range(begin, end):
            self._at(cycle)["drain"] = self._random_partials(1)
            if self.parameters.drain_lanes > 1:
                self._at(cycle)["pass"] = self._random_partials(self.parameters.drain_lanes - 1)
            self.drain[cycle + lanes + 1] = captured.get(cycle, self._at(cycle)["drain"])
        self._at(end + lanes + 1)

    def _os_tile(self, start: int, steps: int, specials_frac: float) -> dict[int, int]:
        """Feed `steps` entries to each lane; return the sums by the cycle in which they are visible."""
        parameters, lanes = self.parameters, self.parameters.adder_latency
        total = np.zeros(lanes, np.float32)
        for step in range(steps):
            words, values = (
                numbers(self.rng, (lanes, parameters.group), specials_frac),
                numbers(self.rng, (lanes,), specials_frac),
            )
            index, valid = self.rng.integers(0, parameters.group, lanes), self.rng.random(lanes) > 0.1
            total = np.where(valid, add(total, multiply(words[np.arange(lanes), index], values)), total)
            for lane in range(lanes):
                at = self._at(start + step * lanes + lane)
                at |= {"words": self._words(words[lane]), "entry": self._entry(values[lane], index[lane], valid[lane])}
        to_sum = parameters.multiplier_latency + lanes
        last = start + (steps - 1) * lanes
        for lane in range(lanes):
            self._at(start + lane + parameters.multiplier_latency - 1)["first"] = 1
            self._at(last + lane + to_sum - 1)["capture"] = 1
        return {last + lane + to_sum: word for lane, word in enumerate(self._partials(total))}

    def run_ws(self) -> None:
        """Stream tile after tile, each bank loaded while the other is in use."""
        begin = load = start = len(self.inputs)
        for number in range(_TILES):
            keep = 1 + number % self.parameters.group
            row_lanes = self.parameters.row_lanes[number % len(self.parameters.row_lanes)]
            entries = keep * (self.parameters.adder_latency // row_lanes)
            start = max(start, load + entries + 1)
            end = self._ws_tile(load, start, number % 2, (keep, row_lanes), number // 2 % 2 * _SPECIALS_FRAC)
            load, start = start, end
        self._at(start + self.parameters.multiplier_latency + self.parameters.adder_latency)
        for at in self.inputs[begin:]:
            at["is_ws"] = 1

    def _ws_tile(self, load: int, start: int, bank: int, form: tuple[int, int], specials_frac: float) -> int:
        """Load entries from cycle `load` on, and from `start` on stream elements over them; return the cycle after the last."""
        parameters, (keep, row_lanes) = self.parameters, form
        col_lanes = parameters.adder_latency // row_lanes
        values = numbers(self.rng, (keep, col_lanes), specials_frac)
        index, valid = self.rng.integers(0, parameters.group, values.shape), self.rng.random(values.shape) > 0.1
        for place, (entry, lane) in enumerate(np.ndindex(keep, col_lanes)):
            packed = self._entry(values[entry, lane], index[entry, lane], valid[entry, lane])
            self._at(load + place).update(write=1, write_address=self._address(lane, entry, bank), entry=packed)
        for _ in range(3):
            words = numbers(self.rng, (row_lanes, parameters.group), specials_frac)
            for column in range(col_lanes):
                for row in range(row_lanes):
                    first = start + column * row_lanes + row
                    total = self._sum_from_north(first, specials_frac)
                    for entry in range(keep):
                        at = self._at(first + entry * parameters.adder_latency)
                        at |= {"words": self._words(words[row]), "read_address": self._address(column, entry, bank)}
                        if valid[entry, column]:
                            total = add(total, multiply(words[row, index[entry, column], None], values[entry, column, None]))
                    self.sum[first + keep * parameters.adder_latency + parameters.multiplier_latency] = self._partials(total)[0]
            start += keep * parameters.adder_latency
        return start

    def _sum_from_north(self, first: int, specials_frac: float) -> Any:
        """Present a sum when the product of operands at the ports in cycle `first` enters the adder; return it."""
        to_adder = self.parameters.multiplier_latency
        total = multiply(numbers(self.rng, (1,), specials_frac), numbers(self.rng, (1,), specials_frac)) + np.float32(0)
        self._at(first + to_adder - 1)["first"] = 1
        self._at(first + to_adder)["sum"] = self._partials(total)[0]
        return total

    def _at(self, cycle: int) -> dict[str, int]:
        self.inputs.extend({} for _ in range(cycle + 1 - len(self.inputs)))
        return self.inputs[cycle]

    def _random_partials(self, count: int) -> int:
        """Return any bits of `count` partial sums side by side."""
        bits_of_one = self.parameters.operand_format.partial_layout.size
        words = self.rng.integers(0, 1 << bits_of_one, count)
        return sum(int(word) << number * bits_of_one for number, word in enumerate(words))

    def _words(self, words: Float16s) -> int:
        form = self.parameters.operand_format
        return sum(int(word) << number * form.operand_layout.size for number, word in enumerate(form.recode(bits(words))))

    def _entry(self, value: Any, index: Any, is_valid: Any) -> int:
        form = self.parameters.operand_format
        return int(form.recode(bits(np.atleast_1d(value)), is_valid)[0]) | int(index) << form.operand_layout.size

    def _address(self, col_lane: int, entry: int, bank: int) -> int:
        parameters = self.parameters
        return col_lane | (entry | bank << parameters.index_bits) << parameters.col_lane_bits

    def _partials(self, totals: Any) -> list[int]:
        return [int(word) for word in self.parameters.operand_format.partial_from_float32(bits(totals))]
