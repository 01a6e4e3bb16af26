"""Every plot of the package: the only place that knows matplotlib.

Plots of a sweep take a pandas table and return a figure; `save` writes it. `style` has the one style of all.
"""

from accel.errors import ConfigError

try:
    import matplotlib.figure  # noqa: F401
except ImportError:
    raise ConfigError("plots need matplotlib, which is not installed; install it with: pip install matplotlib") from None

from accel.plot.accuracy import plot_accuracy_per_epoch, plot_accuracy_per_second
from accel.plot.roofline import plot_roofline
from accel.plot.style import Picture, check_suffix, save
from accel.plot.sweep import plot_front, plot_heat, plot_parallel, plot_sensitivity

__all__ = [
    "Picture",
    "check_suffix",
    "plot_accuracy_per_epoch",
    "plot_accuracy_per_second",
    "plot_front",
    "plot_heat",
    "plot_parallel",
    "plot_roofline",
    "plot_sensitivity",
    "save",
]
