"""A convolution of ResNet-18 in training, product by product on the 16x16 array."""

import numpy as np
import pytest
from array_cpp import ARRAY_16 as PARAMETERS
from array_cpp import check_runs

from accel.golden.numeric import bits
from accel.golden.prune import Entries, prune
from accel.rtl.command import Run
from accel.rtl.stimulus import stimulus
from accel.sparsity import DENSE

pytestmark = [pytest.mark.rtl, pytest.mark.torch]
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from accel.models.machine import MachineEngine, on_machine  # noqa: E402
from accel.models.sparse import sparsify  # noqa: E402
from accel.models.zoo_convolutions import BasicBlock, ResNet  # noqa: E402


class Recorder(MachineEngine):
    """Multiplies as its parent does and keeps what it multiplied."""

    def __init__(self, products):
        super().__init__()
        object.__setattr__(self, "products", products)

    def _multiply(self, lhs, rhs, out_dtype):
        out = super()._multiply(lhs, rhs, out_dtype)
        self.products.append((lhs, rhs, out))
        return out


def products_of_layer(pixels):
    """Return (lhs, rhs, out) of FF, BP and WU of a 3x3 convolution over 256 channels, as the model trains at 2:8."""
    torch.manual_seed(0)
    net = ResNet(BasicBlock, (2, 2, 2, 2))
    layer, seen = net.layer3[1].conv1, []

    def keep(module, inputs, out):
        out.retain_grad()
        seen.extend([inputs[0], out])

    layer.register_forward_hook(keep)
    scores = net(torch.randn(1, 3, pixels, pixels))
    nn.functional.cross_entropy(scores, torch.tensor([7])).mul(1024).backward()
    x, out = seen
    alone = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1, bias=False))
    alone[0].weight.data = layer.weight.data
    on_machine(sparsify(alone, "bdwp", "2:8", exclude=[]))
    products = []
    alone[0].sparse.engine = Recorder(products)
    alone(x.detach().requires_grad_()).backward(out.grad)
    return products


def runs_of(lhs, rhs, out):
    """Return the product as commands: with stationary outputs, and where it is pruned also with stationary weights."""
    north = rhs if isinstance(rhs, Entries) else prune(rhs, DENSE)
    sizes = {
        "pattern": north.pattern,
        "count": 1,
        "dim_m": len(lhs),
        "dim_n": north.dim_n,
        "groups": north.groups,
        "is_rounded": out.dtype == np.float16,
    }
    plans = [Run(dataflow="OS", row_lanes=4, **sizes)]
    if isinstance(rhs, Entries):
        plans.append(Run(dataflow="WS", row_lanes=1, m_chunk=min(len(lhs), 256), **sizes))
    return [(run, stimulus(PARAMETERS, run, lhs[None], [north])) for run in plans]


def check_layer(pixels):
    products = products_of_layer(pixels)
    assert [isinstance(rhs, Entries) for _, rhs, _ in products] == [True, True, False]  # FF and BP pruned, WU dense
    runs = []
    for lhs, rhs, out in products:
        for run, streams in runs_of(lhs, rhs, out):
            placed = np.sort(np.concatenate(streams.out))
            assert np.array_equal(placed, np.sort(bits(out).ravel().astype(np.uint32))), "golden differs from the kernel"
            runs.append((run, streams))
    for (run, _), counters in zip(runs, check_runs(PARAMETERS, runs), strict=True):
        cycles = counters["cycles"]
        print(f"{run.dataflow} {run.dim_m}x{run.dim_n}: {cycles} cycles, {counters['macs'] / (256 * cycles):.4f} of the PEs")


def test_a_layer_in_training_on_a_small_image_gives_the_kernels_bits():
    check_layer(64)


@pytest.mark.soak
def test_a_layer_in_training_gives_the_kernels_bits():
    check_layer(224)
