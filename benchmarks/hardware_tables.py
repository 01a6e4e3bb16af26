"""Print the tables of docs/hardware.md: what PEs and arrays take, and which arrays fit.

    python benchmarks/hardware_tables.py pe        one PE at every adder depth, synthesised for xcup, placed on ECP5
    python benchmarks/hardware_tables.py steps     what each feature of a PE adds
    python benchmarks/hardware_tables.py placed    4x4 PEs placed and routed on ECP5: some ten minutes
    python benchmarks/hardware_tables.py arrays    16x16 and 32x32 PEs synthesised for xcup part by part
    python benchmarks/hardware_tables.py nested    4x4 PEs: sum of the parts against one hierarchical run of Yosys
    python benchmarks/hardware_tables.py fits      the largest arrays on each device, by the model

Results of synthesis are kept in the user's cache. Sizes of arrays are those of `accel synth` and of fit_resources.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accel.arch import Arch
from accel.presets import preset
from accel.rtl.array import SystolicArray
from accel.rtl.emit import emit
from accel.rtl.floats import BF16
from accel.rtl.parameters import ArrayParameters
from accel.rtl.pe import Uspe
from accel.rtl.synth import Synthesis, synthesize, synthesize_arch, synthesize_parts
from accel.rtl.toolchain import run_yosys
from accel.sim import resources

SEEDS = (1,)
"""Of placement; clocks of other seeds differ by some percent."""


class PlainUspe(Uspe):
    """A PE whose sum leaves without a drain chain: only to see what the chain takes."""

    verilog_name = "uspe_plain"

    def _drain(self, m: Any, total: Any) -> None:
        m.d.comb += self.o_drain.eq(total)


def parameters(**changes: Any) -> ArrayParameters:
    """Return a dense OS array with an adder of 4 registers, changed."""
    sizes: dict[str, Any] = {
        "rows": 4,
        "cols": 4,
        "adder_latency": 4,
        "multiplier_latency": 2,
        "group": 1,
        "row_lanes": (1, 2, 4),
        "dataflows": ("OS",),
    }
    if "adder_latency" in changes:
        lanes = changes["adder_latency"]
        sizes["row_lanes"] = tuple(number for number in range(1, lanes + 1) if lanes % number == 0)
    return ArrayParameters(**sizes | changes)


def print_row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def print_header(*cells: str) -> None:
    print_row(*cells)
    print_row(*("---" for _ in cells))


def placed(unit: Uspe | SystolicArray, seeds: Sequence[int] = SEEDS) -> tuple[Synthesis, str]:
    """Return the first placement and the clocks of all seeds, in MHz."""
    verilog = emit(unit)
    runs = [synthesize(verilog, unit.verilog_name, "ecp5", is_placed=True, seed=seed) for seed in seeds]
    return runs[0], ", ".join(f"{run.placement.clock_hz / 1e6:.1f}" for run in runs if run.placement)


def print_unit(name: str, unit: Callable[[], Uspe], is_placed: bool) -> None:
    part = unit()
    xcup = synthesize(emit(part), part.verilog_name, "xcup")
    cells = [xcup.luts, xcup.inverters, xcup.memory_luts, xcup.flip_flops, xcup.dsps]
    if is_placed:
        ecp5, clocks = placed(unit())
        assert ecp5.placement is not None
        cells += [ecp5.placement.luts, ecp5.placement.flip_flops, ecp5.dsps, clocks]  # type: ignore[list-item]
    print_row(name, *cells)


def print_pes() -> None:
    seeds = ", ".join(map(str, SEEDS))
    print_header("L", "LUT", "inverters", "memory LUT", "FF", "DSP", "ECP5 LUT4", "FF", "MULT18", f"MHz (seeds {seeds})")
    for depth in range(2, 9):
        print_unit(str(depth), lambda depth=depth: Uspe(parameters(adder_latency=depth)), is_placed=True)  # type: ignore[misc]
    print_unit("4, no drain", lambda: PlainUspe(parameters()), is_placed=True)


def print_steps() -> None:
    both = ("OS", "WS")
    steps: dict[str, Callable[[], Uspe]] = {
        "dense, OS, no drain chain": lambda: PlainUspe(parameters()),
        "dense, OS": lambda: Uspe(parameters()),
        "one form (1) instead of three": lambda: Uspe(parameters(row_lanes=(1,))),
        "3 multiplier registers": lambda: Uspe(parameters(multiplier_latency=3)),
        "2 drain lanes": lambda: Uspe(parameters(drain_lanes=2)),
        "groups of 2": lambda: Uspe(parameters(group=2)),
        "groups of 4": lambda: Uspe(parameters(group=4)),
        "groups of 8": lambda: Uspe(parameters(group=8)),
        "groups of 16": lambda: Uspe(parameters(group=16)),
        "dense, OS and WS": lambda: Uspe(parameters(dataflows=both)),
        "dense, WS": lambda: Uspe(parameters(dataflows=("WS",))),
        "groups of 8, OS and WS": lambda: Uspe(parameters(group=8, dataflows=both)),
        "dense, OS, BF16": lambda: Uspe(parameters(operand_format=BF16)),
    }
    print_header("PE", "LUT", "inverters", "memory LUT", "FF", "DSP")
    for name, unit in steps.items():
        print_unit(name, unit, is_placed=False)


def print_placed() -> None:
    print_header("4x4 PEs", "LUT4", "FF", "MULT18", "EBR", "MHz (seed 1)")
    arrays = {
        "dense, OS": parameters(),
        "groups of 4, OS and WS": parameters(group=4, dataflows=("OS", "WS")),
    }
    for name, sizes in arrays.items():
        run, clocks = placed(SystolicArray(sizes), (1,))
        assert run.placement is not None
        print_row(name, run.placement.luts, run.placement.flip_flops, run.dsps, f"{run.block_rams:g}", clocks)


def print_arrays() -> None:
    print_header("array", "LUT", "inverters", "memory LUT", "FF", "DSP", "block RAM")
    for side in (16, 32):
        machine = preset("sat-vcu1525").replace(array_rows=side, array_cols=side)
        for name, arch in {
            "dense, OS": machine.replace(group=1, dataflows=("OS",)),
            "groups of 8, OS and WS": machine,
        }.items():
            report = synthesize_arch(arch, "array", "xcup")
            fields = ("luts", "inverters", "memory_luts", "flip_flops", "dsps", "block_rams")
            print_row(f"{side}x{side}, {name}", *(f"{report.total(field):,.10g}" for field in fields))


def print_nested() -> None:
    """Compare the sum of the parts with the total that Yosys counts when it keeps modules and multiplies them out itself."""
    verilog = emit(SystolicArray(parameters(group=4, dataflows=("OS", "WS"))))
    parts = synthesize_parts(verilog, "systolic_array", "xcup")
    with tempfile.TemporaryDirectory() as name:
        for module, text in verilog.items():
            Path(name, f"{module}.v").write_text(text)
        kept = " ".join(part.name for part in parts if part.count > 1)
        script = [*(f"read_verilog {module}.v" for module in verilog), f"setattr -mod -set keep_hierarchy 1 {kept}"]
        script += ["synth_xilinx -family xcup -flatten -top systolic_array", "tee -q -o stat.json stat -json", ""]
        run_yosys("\n".join(script), Path(name))
        cells = json.loads(Path(name, "stat.json").read_text())["design"]["num_cells_by_type"]
    print_header("4x4, groups of 4", "LUT", "FF", "DSP")
    sums = [sum(part.count * getattr(part.each, field) for part in parts) for field in ("luts", "flip_flops", "dsps")]
    print_row("sum of the parts", *sums)
    luts = sum(count for cell, count in cells.items() if cell[:3] == "LUT")
    print_row("one run", luts, cells["FDRE"] + cells.get("FDSE", 0), cells["DSP48E2"])


def print_fits() -> None:
    """For each device and group: the largest square array and the most PEs with at most 70% of the LUTs."""
    big = preset("sat-vcu1525")
    print_header(
        "device", "group", "largest square", "of LUTs", "FF", "DSP", "block RAM", "UltraRAM", "most rows of 64 columns"
    )
    for device in ("XCVU9P", "XCZU9EG", "XCK26"):
        small = {} if device == "XCVU9P" else {f"{side}_buffer_bytes": 2**18 for side in ("west", "north", "output")}
        for group in (1, 4, 8, 16):
            arch = big.replace(group=group, **small)
            side = _most(lambda size, arch=arch: arch.replace(array_rows=size, array_cols=size), device)  # type: ignore[misc]
            rows = _most(lambda size, arch=arch: arch.replace(array_rows=size, array_cols=64), device)  # type: ignore[misc]
            taken = resources.shares(arch.replace(array_rows=side, array_cols=side), device)
            cells = [f"{100 * taken.get(name, 0):.0f}%" for name in resources.shares(big, "XCVU9P")]
            print_row(device, group, f"{side}x{side}", *cells, f"{rows}x64" if rows else "none")


def _most(arch_of: Callable[[int], Arch], device: str) -> int:
    """Return the largest size up to 256 that fits, 0 if none does."""
    return max((size for size in range(1, 257) if resources.fits(arch_of(size), device)), default=0)


TABLES = {
    "pe": print_pes,
    "steps": print_steps,
    "placed": print_placed,
    "arrays": print_arrays,
    "nested": print_nested,
    "fits": print_fits,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    TABLES[parser.parse_args().table]()


if __name__ == "__main__":
    main()
