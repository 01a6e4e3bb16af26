"""Named machines. Each figure has its source beside it; "assumed" marks what no source fixes.

Vector lanes follow one rule on every preset: one lane for each FP16 element that DRAM delivers in a cycle at its peak (rounded
down to whole groups), so that a single pass over a tensor is never slower than memory. The rule is assumed.
"""

from __future__ import annotations

from accel.arch import Arch
from accel.errors import ConfigError

DEFAULT_ARCH = "sat-vcu1525"
DEFAULT_BATCH = 64
"""What is simulated when nothing else is asked for."""

MIB = 2**20
GIB = 2**30

_VCU1525 = Arch(
    name="sat-vcu1525",
    description="32x32 PEs, groups of 8, on a VCU1525: the board of the SAT paper, sizes assumed",
    array_rows=32,  # assumed: the paper's array size is not public; 1,024 PEs take under half the LUTs of an XCVU9P
    array_cols=32,
    clock_hz=200e6,  # assumed
    group=8,  # 2:8 is the pattern of the paper's headline
    adder_latency=4,  # assumed: a depth that closes timing well above 200 MHz on this family
    multiplier_latency=2,  # operand register and product register, the DSP's own
    row_lanes=(1, 2, 4),
    drain_lanes=1,
    west_buffer_bytes=2 * MIB,  # assumed: 6 MiB of the 33.75 MiB of UltraRAM (Xilinx DS890, XCVU9P)
    north_buffer_bytes=2 * MIB,
    output_buffer_bytes=2 * MIB,
    dram_bytes_per_second=4 * 19.2e9,  # four 64-bit DDR4-2400 channels (Xilinx UG1268)
    dram_efficiency_frac=0.9,  # assumed: refresh takes 4.5% (tRFC 350 ns of tREFI 7.8 us, JESD79-4), turn-arounds the rest
    dram_latency_cycles=60,  # assumed: 300 ns at 200 MHz through controller and interconnect
    dram_capacity_bytes=64 * GIB,  # four 16 GiB modules (UG1268)
    dma_setup_cycles=8,  # assumed: descriptor fetch and address generation
    vector_lanes=192,  # the rule above: 384 bytes a cycle at peak
    vector_latency_cycles=32,  # assumed
    sore_lanes=4,  # the rate of 32 lanes that take 8 cycles a group (SAT paper, from readers of the full text)
    wuve_lanes=32,  # assumed, as many as SORE
)

_PRESETS = [
    _VCU1525,
    _VCU1525.replace(
        name="sat-vcu1525-g16", description="sat-vcu1525 with groups of 16, for 2:16 patterns", group=16, sore_lanes=2
    ),
    Arch(
        name="test",
        description="4x4 PEs, groups of 4: small enough to check by hand, every field different from its neighbours",
        array_rows=4,
        array_cols=4,
        clock_hz=100e6,
        group=4,
        adder_latency=2,
        multiplier_latency=1,
        row_lanes=(1, 2),
        west_buffer_bytes=4096,
        north_buffer_bytes=2048,
        output_buffer_bytes=8192,
        dram_bytes_per_second=1.6e9,
        dram_efficiency_frac=1.0,
        dram_latency_cycles=20,
        dram_capacity_bytes=GIB,
        dma_setup_cycles=4,
        vector_lanes=8,
        vector_latency_cycles=5,
        sore_lanes=1,
        wuve_lanes=3,
    ),
    Arch(
        name="edge-kv260",
        description="8x8 PEs on a Kria KV260 class board: one 64-bit DDR4-2400 channel",
        array_rows=8,
        array_cols=8,
        clock_hz=200e6,  # assumed
        group=8,
        adder_latency=4,
        multiplier_latency=2,
        row_lanes=(1, 2, 4),
        west_buffer_bytes=MIB // 4,  # assumed: 0.75 MiB of the 2.25 MiB of UltraRAM (Xilinx DS987)
        north_buffer_bytes=MIB // 4,
        output_buffer_bytes=MIB // 4,
        dram_bytes_per_second=19.2e9,  # 64-bit DDR4-2400 (DS987)
        dram_efficiency_frac=0.9,  # assumed, as above
        dram_latency_cycles=60,  # assumed
        dram_capacity_bytes=4 * GIB,  # DS987
        dma_setup_cycles=8,  # assumed
        vector_lanes=48,  # the rule above: 96 bytes a cycle
        vector_latency_cycles=32,  # assumed
        sore_lanes=1,  # assumed
        wuve_lanes=8,  # assumed
    ),
    Arch(
        name="dc-128",
        description="128x128 PEs at 1 GHz with HBM2e: a data-centre chip of our own invention, all sizes assumed",
        array_rows=128,
        array_cols=128,
        clock_hz=1e9,
        group=8,
        adder_latency=4,
        multiplier_latency=2,
        row_lanes=(1, 2, 4),
        west_buffer_bytes=8 * MIB,
        north_buffer_bytes=8 * MIB,
        output_buffer_bytes=16 * MIB,
        dram_bytes_per_second=4 * 460.8e9,  # four stacks at 3.6 Gbit/s a pin, 1,024 pins (JESD235D)
        dram_efficiency_frac=0.9,
        dram_latency_cycles=200,
        dram_capacity_bytes=64 * GIB,
        dma_setup_cycles=8,
        vector_lanes=920,  # the rule above: 1,843 bytes a cycle
        vector_latency_cycles=32,
        sore_lanes=16,
        wuve_lanes=128,
    ),
]

PRESETS = {arch.name: arch for arch in _PRESETS}
"""Every named machine, in the order of the table that `accel archs` prints."""


def preset(name: str) -> Arch:
    """Return the named machine."""
    if name not in PRESETS:
        raise ConfigError(f"arch must be one of {', '.join(PRESETS)} or a TOML file, not {name!r}")
    return PRESETS[name]
