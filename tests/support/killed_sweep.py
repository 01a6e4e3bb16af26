"""Sweeps that are killed at random moments and begun again, each a copy of one process without other threads.

`python killed_sweep.py OUT SAMPLER BUDGET KILLS SEED` ends with a whole sweep and prints how many were killed.
"""

import os
import signal
import sys
import tempfile
import time
from random import Random

from small_space import WIDE

from accel.explore import Folder, Space, sweep, sweeping


def run(out, sampler, budget, pause=0.0):
    """Sweep point by point, with a part for every other point."""
    sweeping._FIRST_CHUNK, sweeping.CHUNK_SECONDS = 1, 0
    space = Space.from_text(WIDE, "space.toml")
    with Folder(out, space, part_rows=2) as folder:
        sweep(space, folder, sampler=sampler, budget=budget, report=lambda progress: time.sleep(pause))


def main(out, sampler, budget, kills, seed):
    """Kill `kills` sweeps, of which some may have ended before, then let one end."""
    generator, killed = Random(seed), 0
    with tempfile.TemporaryDirectory() as place:
        run(place, "random", "20")  # compiles, or loads what is compiled
    for _ in range(int(kills)):
        child = os.fork()
        if not child:
            run(out, sampler, budget, pause=0.01)
            os._exit(0)
        time.sleep(generator.uniform(0.0, 0.4))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    run(out, sampler, budget)
    print(killed)


if __name__ == "__main__":
    main(*sys.argv[1:])
