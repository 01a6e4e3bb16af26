"""Random small DRAM devices and lists of accesses for them."""

from accel.dram import DEVICES
from accel.golden.dram import Access


def random_device(rng):
    """Return a device with short rows and few banks, so that a few accesses meet every rule."""

    def clocks(most):
        return int(rng.integers(1, most + 1))

    other, row_other, turn_other = clocks(4) + 3, clocks(4), clocks(4)
    write = clocks(8)
    return DEVICES["ddr4-2400-x16"].replace(
        name="random",
        channels=int(rng.choice([1, 2, 4])),
        channel_hash_digits=int(rng.integers(0, 4)),
        bank_groups=int(rng.choice([1, 2, 4])),
        banks_per_group=int(rng.choice([1, 2, 4])),
        row_bytes=int(rng.choice([64, 128, 512])),
        interleave_bytes=int(rng.choice([64, 128])),
        address_order=tuple(map(str, rng.permutation(["group", "column", "bank"]))),
        queue_bursts=int(rng.choice([1, 2, 4, 8])),
        tRCD=clocks(12),
        tRP=clocks(12),
        tRAS=clocks(20),
        CL=clocks(12) + write // 2,
        CWL=write,
        tCCD_S=other,
        tCCD_L=other + clocks(4) - 1,
        tRRD_S=row_other,
        tRRD_L=row_other + clocks(4) - 1,
        tFAW=clocks(40),
        tRTP=clocks(9),
        tWR=clocks(12),
        tWTR_S=turn_other,
        tWTR_L=turn_other + clocks(6) - 1,
    )


def random_accesses(rng, most=20):
    """Return a few accesses to 4 KiB, some of them neighbours of the one before."""
    found, address = [], 0
    for _ in range(int(rng.integers(1, most + 1))):
        address = int(rng.integers(0, 4096)) if rng.random() < 0.7 else address
        size = int(rng.integers(1, 200))
        found.append(Access(address, size, bool(rng.random() < 0.4)))
        address += size
    return found
