"""The peer: SCALE-Sim 3.0.0 in an environment of its own (it needs an older NumPy), made on first use beside this file."""

from __future__ import annotations

import csv
import subprocess
import venv
from pathlib import Path

from measure import Timing, time_process

from accel import networks
from accel.trace import Conv, Linear

REQUIREMENTS = ("scalesim==3.0.0", "numpy<2.4")  # it crashes with NumPy 2.4
ENVIRONMENT = Path(__file__).parent / ".peer-env"

# Its own example configuration with buffers as large as those of sat-vcu1525. CALC: as much bandwidth as the array asks for.
_CONFIG = """\
[general]
run_name = run
[architecture_presets]
ArrayHeight: 32
ArrayWidth: 32
IfmapSramSzkB: 2048
FilterSramSzkB: 2048
OfmapSramSzkB: 2048
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 10
Dataflow: os
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 100
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 100
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""

_PROGRAM = """\
import sys
from scalesim.scale_sim import scalesim
run = scalesim(save_disk_space=True, verbose=True, config="scale.cfg", topology=sys.argv[1], layout="layout.csv")
run.run_scale(top_path="out")
"""


def write_topology(path: Path, network: str) -> None:
    """Write the products of a shipped network as SCALE-Sim's convolution topology.

    SCALE-Sim knows no padding, so the input of a convolution is written as large as its windows reach. A linear layer is a
    convolution of one pixel. Every row ends with the comma that SCALE-Sim's reader needs.
    """
    lines = ["Layer name,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,Num Filter,Strides,"]
    for layer in networks.load(network).layers:
        if isinstance(layer, Conv):
            sizes = zip(layer.kernel, layer.out_size, layer.stride, strict=True)
            reach = [taps + (out - 1) * step for taps, out, step in sizes]
            numbers = [*reach, *layer.kernel, layer.in_channels, layer.out_channels, layer.stride[0]]
        elif isinstance(layer, Linear):
            numbers = [1, 1, 1, 1, layer.in_features, layer.out_features, 1]
        else:
            continue
        lines.append(",".join([layer.name, *map(str, numbers)]) + ",")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def environment_python() -> str:
    """Return the Python that has SCALE-Sim, installing it first if need be."""
    python, ready = ENVIRONMENT / "bin/python", ENVIRONMENT / "ready"
    if not ready.exists():
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *REQUIREMENTS], check=True)
        ready.touch()
    return str(python)


def run(topology: Path, folder: Path) -> tuple[Timing, dict[str, int]]:
    """Return what SCALE-Sim took for a topology and its cycles, working in `folder`."""
    python = environment_python()
    (folder / "scale.cfg").write_text(_CONFIG, encoding="utf-8")
    (folder / "layout.csv").write_text("no layout,\n", encoding="utf-8")  # always opened, not read: no custom layout
    timing = time_process([python, "-c", _PROGRAM, str(topology)], folder / "log.txt", folder)
    with (folder / "out/run/COMPUTE_REPORT.csv").open(encoding="utf-8", newline="") as file:
        layers = list(csv.DictReader(file, skipinitialspace=True))
    columns = {"compute cycles": "Total Cycles", "cycles with first loads": "Total Cycles (incl. prefetch)"}
    return timing, {name: sum(int(float(layer[column])) for layer in layers) for name, column in columns.items()}
