"""Design-space exploration: spaces of machines, sweeps of them, the folders of their results, Pareto fronts.

`Space` is a space file that was read, `sweep` evaluates its points into a folder, `Results.load` gives the folder's table, and
`front` the rows of a table that no other row beats; `recheck` simulates the best of a folder by the machine model.
"""

from accel.explore.pareto import front
from accel.explore.rechecking import Recheck, recheck
from accel.explore.space import Space
from accel.explore.store import Folder, Results
from accel.explore.sweeping import Budget, Progress, sweep

__all__ = ["Budget", "Folder", "Progress", "Recheck", "Results", "Space", "front", "recheck", "sweep"]
