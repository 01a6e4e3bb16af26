"""`DramDevice`: a DRAM and its channels, for the model with banks and rows (docs/dram.md); one named device for each preset.

Lengths of time are clocks of the memory, which moves data on both edges. JEDEC's names are kept for JEDEC's figures.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from accel.arch import Arch
from accel.errors import ConfigError
from accel.validation import TomlRecord

FLAT = "flat"
BANKS = "banks"
"""What DRAM is simulated as: bandwidth times efficiency, or the named device of the machine."""

Digit = Literal["group", "column", "bank"]
DIGITS: tuple[Digit, ...] = ("group", "column", "bank")

_Clocks = Annotated[int, Field(ge=1, le=100_000)]
_Count = Annotated[int, Field(ge=1, le=65_536)]

_POWERS = (
    "channels",
    "bus_bits",
    "burst_length",
    "bank_groups",
    "banks_per_group",
    "row_bytes",
    "interleave_bytes",
)


class DramDevice(TomlRecord):
    """A DRAM: channels that each have banks in groups; every bank holds one open row.

    An address counts bursts. Its bits are, from the lowest: which burst of `interleave_bytes`, the channel, what is left of the
    burst's place in the channel. That place has the digits of `address_order`, the lowest first, and above them the row. The
    bits of the channel are XORed with the next `channel_hash_digits` times as many above them, so that tiles whose lines are a
    power of two apart do not all lie in one channel.
    """

    description: str = ""
    clock_hz: Annotated[float, Field(ge=1e3, le=1e12, allow_inf_nan=False)]
    channels: _Count
    bus_bits: _Count
    """Data bits of one channel."""
    burst_length: _Count
    """Data bits a pin moves for one column command."""
    bank_groups: _Count
    banks_per_group: _Count
    row_bytes: _Count
    """What one activate opens, all chips of a channel together."""
    interleave_bytes: _Count
    """Bytes in a row that lie in one channel before the next one follows."""
    channel_hash_digits: Annotated[int, Field(ge=0, le=8)] = 3
    address_order: tuple[Digit, ...] = DIGITS
    queue_bursts: _Count
    """How many bursts a channel's controller looks ahead, to open their rows in time."""
    turn_bytes: Annotated[int, Field(ge=1, le=2**30)]
    """What an engine that streams several tensors moves of one before it turns to the next."""
    tRCD: _Clocks
    """From an activate to a column command of that bank."""
    tRP: _Clocks
    """From a precharge to an activate of that bank."""
    tRAS: _Clocks
    """From an activate to a precharge of that bank."""
    CL: _Clocks
    """From a read command to its first data."""
    CWL: _Clocks
    """From a write command to its first data."""
    tCCD_S: _Clocks
    """From a column command to one of the same kind in another bank group; tCCD_L: in the same group."""
    tCCD_L: _Clocks
    tRRD_S: _Clocks
    """From an activate to one in another bank group; tRRD_L: in the same group."""
    tRRD_L: _Clocks
    tFAW: _Clocks
    """Clocks in which at most four activates begin."""
    tRTP: _Clocks
    """From a read to a precharge of that bank."""
    tWR: _Clocks
    """From the end of written data to a precharge of that bank."""
    tWTR_S: _Clocks
    """From the end of written data to a read in another bank group; tWTR_L: in the same group."""
    tWTR_L: _Clocks
    tRFC: _Clocks
    """How long a refresh takes; one is due every tREFI."""
    tREFI: _Clocks

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [
            f"{name} must be a power of 2, not {getattr(self, name)}"
            for name in _POWERS
            if getattr(self, name) & (getattr(self, name) - 1)
        ]
        if sorted(self.address_order) != sorted(DIGITS):
            problems.append(f"address_order must name {', '.join(DIGITS)} once each, not {list(self.address_order)}")
        if self.bus_bits < 8:
            problems.append(f"bus_bits must be at least 8, not {self.bus_bits}")
        if self.burst_length < 2:
            problems.append(f"burst_length must be at least 2, not {self.burst_length}")
        problems += [
            f"{name} must be at least {bound} ({what}), not {getattr(self, name)}"
            for name, bound, what in self._least()
            if getattr(self, name) < bound
        ]
        if self.read_to_write < 1:
            problems.append(
                f"CWL must be at most CL + burst_length / 2 + 1 ({self.CWL + self.read_to_write - 1}), not {self.CWL}"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _least(self) -> list[tuple[str, int, str]]:
        return [
            ("row_bytes", self.burst_bytes, "one burst"),
            ("interleave_bytes", self.burst_bytes, "one burst"),
            ("turn_bytes", self.burst_bytes, "one burst"),
            ("tCCD_S", self.burst_clocks, "one burst"),
            ("tCCD_L", self.tCCD_S, "tCCD_S"),
            ("tRRD_L", self.tRRD_S, "tRRD_S"),
            ("tWTR_L", self.tWTR_S, "tWTR_S"),
            ("tREFI", self.tRFC + 1, "more than tRFC"),
        ]

    @property
    def burst_bytes(self) -> int:
        """Bytes that one column command moves."""
        return self.bus_bits * self.burst_length // 8

    @property
    def burst_clocks(self) -> int:
        """Clocks of a burst on the data bus."""
        return self.burst_length // 2

    @property
    def columns(self) -> int:
        """Bursts of one row."""
        return self.row_bytes // self.burst_bytes

    @property
    def span_bytes(self) -> int:
        """One row of every bank of every channel: addresses that far apart differ in their row alone."""
        return self.channels * self.bank_groups * self.banks_per_group * self.row_bytes

    @property
    def bytes_per_second(self) -> float:
        """Peak bandwidth of all channels."""
        return self.clock_hz * 2 * self.bus_bits / 8 * self.channels

    @property
    def read_to_write(self) -> int:
        """Clocks from a read command to a write command: the bus is free for two clocks between their data (JESD79-4)."""
        return self.CL + self.burst_clocks + 2 - self.CWL

    @property
    def refresh_frac(self) -> float:
        """Share of the time that refreshes take."""
        return self.tRFC / self.tREFI


_DDR4_2400 = DramDevice(
    name="ddr4-2400-x4-4ch",
    description="four channels of DDR4-2400, 8 Gbit chips x4, one rank: the modules of a VCU1525",
    clock_hz=1200e6,  # JESD79-4: DDR4-2400
    channels=4,  # UG1268: four modules
    bus_bits=64,  # UG1268; the 8 bits of ECC beside them carry no data
    burst_length=8,  # JESD79-4: BL8
    bank_groups=4,  # JESD79-4: x4 and x8
    banks_per_group=4,
    row_bytes=8192,  # JESD79-4: 512 bytes of each of 16 x4 chips
    interleave_bytes=256,  # assumed: one burst of each bank group
    channel_hash_digits=3,  # assumed
    queue_bursts=32,  # assumed
    turn_bytes=16_384,  # assumed: 4 KiB of each channel
    CL=17,  # JESD79-4, table of speed bins: 2400U, 17-17-17 (modules marked -2G3)
    tRCD=17,
    tRP=17,
    tRAS=39,  # 32 ns
    CWL=12,  # JESD79-4: CWL of DDR4-2400 is 12 or 16
    tCCD_S=4,  # JESD79-4, timing by speed bin, with those below
    tCCD_L=6,  # 5 ns
    tRRD_S=4,  # pages of 1/2 KiB: the larger of 4 clocks and 3.3 ns
    tRRD_L=6,  # 4.9 ns
    tFAW=16,  # pages of 1/2 KiB: the larger of 16 clocks and 13 ns
    tRTP=9,  # 7.5 ns
    tWR=18,  # 15 ns
    tWTR_S=3,  # 2.5 ns
    tWTR_L=9,  # 7.5 ns
    tRFC=420,  # 350 ns for 8 Gbit
    tREFI=9360,  # 7.8 us up to 85 degrees
)

_DEVICES = [
    _DDR4_2400,
    _DDR4_2400.replace(
        name="ddr4-2400-x16",
        description="one 64-bit channel of DDR4-2400, 8 Gbit chips x16: the memory of a K26 module",
        channels=1,  # DS987: 4 GB, 64 bits
        bank_groups=2,  # JESD79-4: x16
        row_bytes=8192,  # 2 KiB of each of 4 chips
        interleave_bytes=256,  # of no effect with one channel
        turn_bytes=4096,  # assumed: as much of each channel as above
        tRRD_S=7,  # pages of 2 KiB: 5.3 ns
        tRRD_L=8,  # 6.4 ns
        tFAW=36,  # 30 ns
    ),
    DramDevice(
        name="hbm2e-3600-4stack",
        description="four stacks of HBM2e at 3.6 Gbit/s a pin: 64 pseudo channels of 64 bits",
        clock_hz=1800e6,  # JESD235D: 3.6 Gbit/s on both edges
        channels=64,  # JESD235D: 8 channels of two pseudo channels in each of four stacks
        bus_bits=64,
        burst_length=4,  # JESD235D: pseudo channels
        bank_groups=4,
        banks_per_group=4,  # of one stack ID
        row_bytes=1024,  # JESD235D: 1 KiB in a pseudo channel
        interleave_bytes=256,  # assumed
        channel_hash_digits=3,  # assumed
        queue_bursts=64,  # assumed
        turn_bytes=262_144,  # assumed: 4 KiB of each channel, as above
        CL=26,  # makers' own from here on; assumed: 14 ns, with the lengths of HBM2_8Gb_x128 of DRAMsim3 below
        tRCD=26,  # 14 ns
        tRP=26,  # 14 ns
        tRAS=62,  # 34 ns
        CWL=8,  # 4 ns
        tCCD_S=2,  # JESD235D: a burst
        tCCD_L=4,  # assumed: two bursts
        tRRD_S=8,  # 4 ns
        tRRD_L=11,  # 6 ns
        tFAW=54,  # 30 ns
        tRTP=11,  # 6 ns
        tWR=29,  # 16 ns
        tWTR_S=11,  # 6 ns
        tWTR_L=15,  # 8 ns
        tRFC=630,  # 350 ns: all banks at once; assumed
        tREFI=7020,  # 3.9 us
    ),
    DramDevice(
        name="ddr-200",
        description="one 64-bit channel of DDR-200, the slowest DDR: small figures to check by hand",
        clock_hz=100e6,  # JESD79: DDR200
        channels=1,
        bus_bits=64,
        burst_length=4,  # JESD79: 2, 4 or 8
        bank_groups=1,  # JESD79: four banks, no groups
        banks_per_group=4,
        row_bytes=8192,  # JESD79, 256 Mbit x8: 1,024 columns on 8 chips
        interleave_bytes=256,  # of no effect with one channel
        queue_bursts=8,  # assumed
        turn_bytes=2048,  # assumed
        CL=2,  # JESD79
        tRCD=2,  # 20 ns
        tRP=2,  # 20 ns
        tRAS=5,  # 50 ns
        CWL=1,  # JESD79: tDQSS, one clock
        tCCD_S=2,  # JESD79: a burst
        tCCD_L=2,
        tRRD_S=2,  # 15 ns
        tRRD_L=2,
        tFAW=8,  # none in JESD79: four times tRRD
        tRTP=2,  # JESD79: a burst
        tWR=2,  # 15 ns
        tWTR_S=1,  # JESD79
        tWTR_L=1,
        tRFC=8,  # 80 ns
        tREFI=780,  # 7.8 us
    ),
]

DEVICES = {device.name: device for device in _DEVICES}
"""Every named device."""

DEVICE_OF_PRESET = {
    "sat-vcu1525": "ddr4-2400-x4-4ch",
    "sat-vcu1525-g16": "ddr4-2400-x4-4ch",
    "test": "ddr-200",
    "edge-kv260": "ddr4-2400-x16",
    "dc-128": "hbm2e-3600-4stack",
}


def resolve_dram(dram: str | Path | DramDevice, arch: Arch) -> DramDevice | None:
    """Return the device that `dram` asks for beside `arch`, None for the flat model.

    `dram` is "flat", "banks" (the device of the preset that `arch` is), a TOML file's path or a device. Its peak bandwidth
    must be that of `arch`.
    """
    device = _device(dram, arch)
    if device is not None and not math.isclose(device.bytes_per_second, arch.dram_bytes_per_second, rel_tol=1e-6):
        raise ConfigError(
            f"dram_bytes_per_second of {arch.name} must be the peak of DRAM {device.name} ({device.bytes_per_second:.6g}), "
            f"not {arch.dram_bytes_per_second:.6g}; change the one or the other"
        )
    return device


def _device(dram: str | Path | DramDevice, arch: Arch) -> DramDevice | None:
    if isinstance(dram, DramDevice):
        return dram
    if isinstance(dram, Path) or "/" in dram or "." in dram:
        return DramDevice.load(dram)
    if dram == FLAT:
        return None
    if dram != BANKS:
        raise ConfigError(f"dram must be {FLAT}, {BANKS} or a TOML file, not {dram!r}")
    if arch.name not in DEVICE_OF_PRESET:
        raise ConfigError(f"dram must be {FLAT} or a TOML file for {arch.name}, which is no preset, not {BANKS!r}")
    return DEVICES[DEVICE_OF_PRESET[arch.name]]
