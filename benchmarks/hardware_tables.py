"""Make the tables of docs/hardware.md: what PEs and arrays take, how good the model is, and which arrays fit.

    python benchmarks/hardware_tables.py pe steps            print these tables
    python benchmarks/hardware_tables.py all --write         make every table and put it into the page
    python benchmarks/hardware_tables.py all --write --cached   only those that need no synthesis any more

Tables: see `TABLES`. Results of synthesis are kept in the user's cache. From nothing `placed` takes half an hour, `seeds`
and `arrays` some minutes each. `model`, `check` and `fits` read `accel/sim/resources.json`, which fit_resources.py makes.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pages
from pages import Table

from accel.arch import Arch
from accel.presets import preset
from accel.rtl import synth
from accel.rtl.array import SystolicArray
from accel.rtl.emit import emit
from accel.rtl.floats import BF16
from accel.rtl.parameters import ArrayParameters
from accel.rtl.pe import Uspe
from accel.rtl.synth import Placement, Synthesis, synthesize, synthesize_arch, synthesize_parts
from accel.sim import resources

MODEL = Path(resources.__file__).with_name("resources.json")
BOTH = ("OS", "WS")
XCUP = ["LUT", "inverters", "memory LUT", "FF", "DSP"]
ECP5 = ["ECP5 LUT4", "FF", "MULT18", "MHz"]

# Synthesised as the PEs are, in wrappers with operand registers, the sum in a loop, and a sum register; see docs/hardware.md.
OTHERS: Table = [
    ["an earlier, throw-away PE of ours", "FP16 x FP16 + FP32", 4, 485, 278, 1, 828, 116],
    ["the same", "", 6, 533, 363, 1, 791, 137],
    ["HardFloat: product, exact widening, addRecFN(8, 24)", "the same, FP32 subnormals", 1, 565, 134, 1, 935, 37.5],
    ["HardFloat addRecFN(8, 24)", "FP32 + FP32", 1, 490, 99, 0, 847, 40],
    ["CVFPU fpnew_fma_multi, FP16 and FP32", "FP16 x FP16 + FP32, rounded once", 1, 1160, 153, 1, 2846, 18],
    ["the same, 4 registers distributed", "the same", 4, 1291, 372, 2, 2757, 34],
    ["the same, 6 registers distributed", "the same", 6, 1301, 472, 2, 2678, 35.5],
    ["FloPoCo FPAdd 8, 23 in a loop", "FP32 + FP32, no subnormals", 4, "526 + 67", 195, 0, 1005, 68],
    ["systars PE", "int8 x int8 + int32", 1, 86, 89, 1, 156, 191.5],
]


class PlainUspe(Uspe):
    """A PE whose sum leaves without a drain chain: only to see what the chain takes."""

    verilog_name = "uspe_plain"

    def _drain(self, m: Any, total: Any) -> None:
        m.d.comb += self.o_drain.eq(total)


class UncountedArray(SystolicArray):
    """An array without its counters: only to see whether they limit its clock."""

    verilog_name = "systolic_array_uncounted"

    def _count(self, m: Any, units: Any, enable: Any, is_taken: Any) -> None:
        pass


def parameters(**changes: Any) -> ArrayParameters:
    """Return a dense OS array with an adder of 4 registers and all its forms, changed."""
    sizes: dict[str, Any] = {
        "rows": 4,
        "cols": 4,
        "adder_latency": 4,
        "multiplier_latency": 2,
        "group": 1,
        "dataflows": ("OS",),
    }
    sizes |= changes
    lanes = sizes["adder_latency"]
    sizes.setdefault("row_lanes", tuple(number for number in range(1, lanes + 1) if lanes % number == 0))
    return ArrayParameters(**sizes)


def on_xcup(unit: Uspe) -> Synthesis:
    return synthesize(emit(unit), unit.verilog_name, "xcup")


def placed(unit: Uspe | SystolicArray, seed: int = 1) -> tuple[Synthesis, Placement]:
    found = synthesize(emit(unit), unit.verilog_name, "ecp5", is_placed=True, seed=seed)
    assert found.placement is not None
    return found, found.placement


def xcup_cells(found: Synthesis) -> list[object]:
    return [found.luts, found.inverters, found.memory_luts, found.flip_flops, found.dsps]


def ecp5_cells(unit: Uspe) -> list[object]:
    found, placement = placed(unit)
    return [placement.luts, placement.flip_flops, found.dsps, mhz(placement)]


def mhz(placement: Placement) -> str:
    return f"{placement.clock_hz / 1e6:.1f}"


def pe_table() -> Table:
    units: dict[str, Callable[[], Uspe]] = {
        str(depth): lambda depth=depth: Uspe(parameters(adder_latency=depth))  # type: ignore[misc]
        for depth in range(2, 9)
    }
    units["4, no drain chain"] = lambda: PlainUspe(parameters())
    units["6, no drain chain"] = lambda: PlainUspe(parameters(adder_latency=6))
    return [["L", *XCUP, *ECP5], *([name, *xcup_cells(on_xcup(unit())), *ecp5_cells(unit())] for name, unit in units.items())]


def seed_table() -> Table:
    """Clocks of a few PEs with other seeds, and what is at the ends of the slowest path."""
    rows: Table = [["PE", "seed 1", "seed 2", "seed 3", "slowest path of seed 1"]]
    for name, changes in {
        "L = 4": {},
        "L = 6": {"adder_latency": 6},
        "L = 6, P = 3": {"adder_latency": 6, "multiplier_latency": 3},
        "L = 4, groups of 8": {"group": 8},
        "L = 4, groups of 8, OS and WS": {"group": 8, "dataflows": BOTH},
    }.items():
        found = [placed(Uspe(parameters(**changes)), seed)[1] for seed in (1, 2, 3)]
        rows.append([name, *map(mhz, found), path(found[0])])
    return rows


def path(placement: Placement) -> str:
    return " to ".join(f"`{end}`" for end in placement.path)


STEPS: dict[str, Callable[[], Uspe]] = {
    "dense, OS, no drain chain": lambda: PlainUspe(parameters()),
    "dense, OS": lambda: Uspe(parameters()),
    "... one form (1) instead of three": lambda: Uspe(parameters(row_lanes=(1,))),
    "... P = 3": lambda: Uspe(parameters(multiplier_latency=3)),
    "... 2 drain lanes": lambda: Uspe(parameters(drain_lanes=2)),
    "... BF16": lambda: Uspe(parameters(operand_format=BF16)),
    "groups of 2, OS": lambda: Uspe(parameters(group=2)),
    "groups of 4, OS": lambda: Uspe(parameters(group=4)),
    "groups of 8, OS": lambda: Uspe(parameters(group=8)),
    "groups of 16, OS": lambda: Uspe(parameters(group=16)),
    "dense, WS": lambda: Uspe(parameters(dataflows=("WS",))),
    "groups of 8, WS": lambda: Uspe(parameters(group=8, dataflows=("WS",))),
    "... one form (4) instead of three": lambda: Uspe(parameters(group=8, dataflows=("WS",), row_lanes=(4,))),
    "dense, OS and WS": lambda: Uspe(parameters(dataflows=BOTH)),
    "groups of 8, OS and WS": lambda: Uspe(parameters(group=8, dataflows=BOTH)),
}


def step_table() -> Table:
    dense = on_xcup(STEPS["dense, OS"]())
    rows: Table = [["PE", *XCUP, "all LUTs against dense, OS", "FF"]]
    for name, unit in STEPS.items():
        found = on_xcup(unit())
        more = [found.all_luts - dense.all_luts, found.flip_flops - dense.flip_flops]
        rows.append([name, *xcup_cells(found), *(f"{difference:+d}" for difference in more)])
    return rows


def effective_table() -> Table:
    """LUTs of all kinds for one dense multiply-add a cycle; of 8 products 2:8 computes 2."""
    rows: Table = [["", "dense, OS", "2:8, OS", "2:8, OS and WS", "dense over 2:8"]]
    units = [on_xcup(STEPS[name]()).all_luts for name in ("dense, OS", "groups of 8, OS", "groups of 8, OS and WS")]
    machine = preset("sat-vcu1525")
    arrays = [machine.replace(group=1, dataflows=("OS",)), machine.replace(dataflows=("OS",)), machine]
    wholes = [synthesize_arch(arch, "array", "xcup").total("all_luts") / arch.pes for arch in arrays]
    for name, luts in (("a PE", units), ("32x32 PEs with feeders and feet", wholes)):
        each = [luts[0], luts[1] / 4, luts[2] / 4]
        ratios = f"{each[0] / each[1]:.2f}, {each[0] / each[2]:.2f}"
        rows.append([name, *(f"{number:.0f}" for number in each), ratios])
    return rows


def other_table() -> Table:
    header = ["unit", "computes", "L", "xcup LUT", "FF", "DSP", "ECP5 LUT4", "MHz"]
    ours: Table = []
    for name, unit, depth in (
        ("`uspe`, dense, OS, no drain chain", PlainUspe, 4),
        ("the same", PlainUspe, 6),
        ("`uspe`, dense, OS, with its drain chain", Uspe, 4),
    ):
        found, (ecp5, placement) = on_xcup(unit(sizes := parameters(adder_latency=depth))), placed(unit(sizes))
        luts = f"{found.luts} + {found.memory_luts}" if found.memory_luts else found.luts
        computes = "" if name == "the same" else "FP16 x FP16 + FP32"
        ours.append([name, computes, depth, luts, found.flip_flops, ecp5.dsps, placement.luts, mhz(placement)])
    return [header, *ours, *OTHERS]


def placed_table() -> Table:
    rows: Table = [["4x4 PEs", "LUT4", "FF", "MULT18", "MHz", "slowest path"]]
    arrays = {"dense, OS": SystolicArray(parameters()), "the same without its counters": UncountedArray(parameters())}
    for name, array in arrays.items():
        found, placement = placed(array)
        rows.append([name, f"{placement.luts:,}", f"{placement.flip_flops:,}", found.dsps, mhz(placement), path(placement)])
    return rows


def array_table() -> Table:
    rows: Table = [["array", *XCUP, "block RAM"]]
    for side in (16, 32):
        machine = preset("sat-vcu1525").replace(array_rows=side, array_cols=side)
        machines = {"dense, OS": machine.replace(group=1, dataflows=("OS",)), "groups of 8, OS and WS": machine}
        for name, arch in machines.items():
            report = synthesize_arch(arch, "array", "xcup")
            fields = ("luts", "inverters", "memory_luts", "flip_flops", "dsps", "block_rams")
            rows.append([f"{side}x{side}, {name}", *(f"{report.total(field):,.10g}" for field in fields)])
    return rows


def nested_table() -> Table:
    """Compare the sum of the parts with the total that Yosys counts when it keeps modules and multiplies them out itself."""
    verilog = emit(SystolicArray(parameters(group=4, dataflows=BOTH)))
    parts = synthesize_parts(verilog, "systolic_array", "xcup")
    with tempfile.TemporaryDirectory() as name:
        for module, text in verilog.items():
            Path(name, f"{module}.v").write_text(text)
        kept = " ".join(part.name for part in parts if part.count > 1)
        script = [*(f"read_verilog {module}.v" for module in verilog), f"setattr -mod -set keep_hierarchy 1 {kept}"]
        script += ["synth_xilinx -family xcup -flatten -top systolic_array", "tee -q -o stat.json stat -json", ""]
        synth.run_yosys("\n".join(script), Path(name))
        cells = json.loads(Path(name, "stat.json").read_text())["design"]["num_cells_by_type"]
    sums = [sum(part.count * getattr(part.each, field) for part in parts) for field in ("luts", "flip_flops", "dsps")]
    luts = sum(count for cell, count in cells.items() if re.fullmatch("LUT[1-6]", cell))
    one_run = [luts, cells["FDRE"] + cells.get("FDSE", 0), cells["DSP48E2"]]
    return [["4x4, groups of 4, OS and WS", "LUT", "FF", "DSP"], ["sum of the parts", *sums], ["one run", *one_run]]


def model_table() -> Table:
    model = json.loads(MODEL.read_text(encoding="utf-8"))["modules"]
    rows: Table = [
        ["module", "points", "held out", "LUT: mean error of the fit", "held out", "at most", "FF: held out", "at most"]
    ]
    for name, module in model.items():
        errors = module["errors_frac"]
        luts, flip_flops = errors["luts"], errors["flip_flops"]
        shares = [luts["mean_of_fit"], luts["mean"], luts["max"], flip_flops["mean"], flip_flops["max"]]
        shown = [f"{100 * share:.1f}%" if module["held_out"] else "" for share in shares]
        rows.append([f"`{name}`", module["points"], module["held_out"], *shown])
    return rows


def check_table() -> Table:
    model = json.loads(MODEL.read_text(encoding="utf-8"))
    rows: Table = [
        ["array, OS and WS", "LUT and inverters", "model", "memory LUT", "model", "FF", "model", "block RAM", "model"]
    ]
    for array in model["arrays"]:
        cells = [array["array"]]
        for name in ("luts", "memory_luts", "flip_flops", "block_rams"):
            found, guess = array[name]["synthesis"], array[name]["model"]
            cells += [f"{found:,.10g}", f"{100 * (guess / max(found, 1) - 1):+.1f}%"]
        rows.append(list(cells))
    return rows


def sore_table() -> Table:
    model = json.loads(MODEL.read_text(encoding="utf-8"))["sore"]
    names = ("luts", "memory_luts", "flip_flops")
    return [
        ["SORE, groups of", "LUT", "memory LUT", "FF"],
        *([group, *(f"{of[name]:g}" for name in names)] for group, of in model.items()),
    ]


def fit_table() -> Table:
    """For each device and group: the largest square array, and the most rows of 64 columns, with at most 70% of the LUTs."""
    big = preset("sat-vcu1525")
    kinds = ("all_luts", "flip_flops", "dsps", "block_rams", "ultra_rams")
    rows: Table = [
        ["device", "group", "largest square", "LUTs", "FF", "DSP", "block RAM", "UltraRAM", "rows of 64 columns", "32x32: LUTs"]
    ]
    for device in ("XCVU9P", "XCZU9EG", "XCK26"):
        small = {} if device == "XCVU9P" else {f"{side}_buffer_bytes": 2**18 for side in ("west", "north", "output")}
        for group in (1, 4, 8, 16):
            arch = big.replace(group=group, **small)
            side = _most(lambda size, arch=arch: arch.replace(array_rows=size, array_cols=size), device)  # type: ignore[misc]
            tall = _most(lambda size, arch=arch: arch.replace(array_rows=size, array_cols=64), device)  # type: ignore[misc]
            taken = resources.shares(arch.replace(array_rows=side, array_cols=side), device)
            shown = [f"{100 * taken[kind]:.0f}%" if kind in taken else "" for kind in kinds]
            whole = f"{100 * resources.shares(arch, device)['all_luts']:.0f}%"
            rows.append([device, group, f"{side}x{side}", *shown, tall or "none", whole])
    return rows


def _most(arch_of: Callable[[int], Arch], device: str) -> int:
    """Return the largest size up to 128 that fits, 0 if none does."""
    return max((size for size in range(1, 129) if resources.fits(arch_of(size), device)), default=0)


TABLES: dict[str, Callable[[], Table]] = {
    "pe": pe_table,
    "steps": step_table,
    "effective": effective_table,
    "others": other_table,
    "model": model_table,
    "check": check_table,
    "sore": sore_table,
    "fits": fit_table,
    "arrays": array_table,
    "nested": nested_table,
    "seeds": seed_table,
    "placed": placed_table,
}


class _NotCached(Exception):
    """A table needs a tool that --cached forbids."""


def _refuse(*arguments: object) -> str:
    raise _NotCached


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", choices=["all", *TABLES], metavar="TABLE", help=f"all, {', '.join(TABLES)}")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/hardware.md")
    parser.add_argument("--cached", action="store_true", help="leave out tables that need synthesis")
    options = parser.parse_args(arguments)
    if options.cached:
        synth.run_yosys = synth.run_nextpnr_ecp5 = _refuse  # type: ignore[assignment]
    for name in TABLES if "all" in options.tables else options.tables:
        try:
            table = TABLES[name]()
        except _NotCached:
            print(f"{name}: needs synthesis\n")
            continue
        pages.show("hardware.md", name, table, options.write)


if __name__ == "__main__":
    main()
