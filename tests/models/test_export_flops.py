"""Nominal multiply-accumulates of a trace, twice, are the operations that PyTorch counts over a real forward and backward.

Where `FlopCounterMode` itself is off, and what is done about it here:
- The weight gradient of a grouped convolution is counted `groups` times too often: it is counted from the module instead.
- Fused attention is counted as nothing or with its own formula: the math back end runs the plain products.
Both run on the meta device, so that no data is computed.
"""

from math import prod

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from accel import networks  # noqa: E402
from accel.dataflow.context import Options  # noqa: E402
from accel.dataflow.lowering import lower  # noqa: E402
from accel.gemm import Stage  # noqa: E402
from accel.methods import method, optimizer  # noqa: E402
from accel.models import zoo  # noqa: E402
from accel.models.exporter import export  # noqa: E402
from accel.sparsity import DENSE  # noqa: E402

BATCH = 2


def nominal_operations(trace):
    options = Options(batch=BATCH, method=method("dense"), pattern=DENSE, optimizer=optimizer("sgd"), word_elems=8)
    products = [gemm for gemm in lower(trace, options).gemms if gemm.stage is not Stage.OPTIMIZER]
    return 2 * sum(gemm.macs_nominal for gemm in products)


class GroupedWeightGradients:
    """What the counter adds for weight gradients of grouped convolutions beyond the forward's operations."""

    def __init__(self, module):
        self.excess = 0
        for part in module.modules():
            if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) and part.groups > 1 and part.weight.requires_grad:
                part.register_forward_hook(self.add)

    def add(self, conv, _, out):
        forward = 2 * out.numel() * prod(conv.weight.shape[1:])
        self.excess += (conv.groups - 1) * forward


def counted_operations(module, inputs):
    grouped = GroupedWeightGradients(module)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = module.train()(**inputs)
        (out if isinstance(out, torch.Tensor) else out[0]).sum().backward()
    return counter.get_total_flops() - grouped.excess


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_shipped_network(name):
    network = zoo.NETWORKS[name]
    assert nominal_operations(networks.load(name)) == counted_operations(network.module(), network.example_inputs(BATCH))


def bert(hf):
    config = hf.BertConfig(num_hidden_layers=2, hidden_size=64, num_attention_heads=4, intermediate_size=128, vocab_size=100)
    return hf.BertForSequenceClassification(config), tokens()


def gpt2(hf):
    config = hf.GPT2Config(
        n_layer=2, n_embd=64, n_head=4, vocab_size=100, n_positions=64, use_cache=False, bos_token_id=1, eos_token_id=2
    )
    return hf.GPT2LMHeadModel(config), tokens()


def vit(hf):
    config = hf.ViTConfig(
        num_hidden_layers=2, hidden_size=64, num_attention_heads=4, intermediate_size=128, image_size=32, patch_size=8
    )
    return hf.ViTForImageClassification(config), images(32)


def llama(hf):
    config = hf.LlamaConfig(
        num_hidden_layers=2,
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        vocab_size=100,
        use_cache=False,
    )
    return hf.LlamaForCausalLM(config), tokens()


def mobilenet_v2(hf):
    return hf.MobileNetV2ForImageClassification(hf.MobileNetV2Config(image_size=64, depth_multiplier=0.35)), images(64)


def swin(hf):
    config = hf.SwinConfig(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)
    return hf.SwinForImageClassification(config), images(32)


def convnext(hf):
    config = hf.ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 64, 128], image_size=64)
    return hf.ConvNextForImageClassification(config), images(64)


def tokens():
    return {"input_ids": torch.ones(BATCH, 16, dtype=torch.int64)}


def images(size):
    return {"pixel_values": torch.ones(BATCH, 3, size, size)}


@pytest.mark.filterwarnings("ignore")  # of the library, about itself
@pytest.mark.parametrize("build", [bert, gpt2, vit, llama, mobilenet_v2, swin, convnext])
def test_hugging_face_model(build):
    module, inputs = build(pytest.importorskip("transformers"))
    assert nominal_operations(export(module, inputs, loss="cross_entropy")) == counted_operations(module, inputs)


class UNet(nn.Module):
    """Two levels, skips by concatenation, transposed convolutions of both usual forms."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.middle = self.block(3, 8), self.block(8, 16), self.block(16, 32)
        self.up2, self.up1 = nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 4, 2, 1)
        self.join2, self.join1, self.out = self.block(32, 16), self.block(16, 8), nn.Conv2d(8, 4, 1)

    def block(self, inputs, channels):
        return nn.Sequential(nn.Conv2d(inputs, channels, 3, padding=1), nn.GroupNorm(2, channels), nn.SiLU())

    def forward(self, x):
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        x = self.middle(functional.max_pool2d(second, 2))
        x = self.join2(torch.cat([self.up2(x), second], 1))
        return self.out(self.join1(torch.cat([self.up1(x), first], 1)))


class LlamaBlock(nn.Module):
    """RMS norm, rotary positions, grouped queries, gated MLP."""

    def __init__(self, width=32, heads=4, kv_heads=2):
        super().__init__()
        self.dim = width // heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, kv_heads * self.dim, bias=False) for _ in range(2))
        self.gate, self.up, self.down = nn.Linear(width, 48), nn.Linear(width, 48), nn.Linear(48, width)
        self.register_buffer("frequencies", 10000 ** -(torch.arange(0, self.dim, 2) / self.dim))

    def rotate(self, x):
        angles = torch.outer(torch.arange(x.shape[2]).float(), self.frequencies).repeat(1, 2)
        first, second = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()

    def forward(self, x):
        y = self.norm1(x)
        q, k, v = (layer(y).unflatten(-1, (-1, self.dim)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = functional.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Shared(nn.Module):
    """One embedding for input and output, and a layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.table, self.mix, self.norm = nn.Embedding(50, 16), nn.Linear(16, 16), nn.LayerNorm(16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x):
        x = self.table(x)
        for _ in range(2):
            x = self.norm(x + functional.relu(self.mix(x)))
        return self.head(x)


class Computed(nn.Module):
    """Weights and a bias that are computed in every step: normalised, centred, scaled."""

    def __init__(self):
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
        self.second, self.third = nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        weight = self.second.weight
        x = functional.conv2d(self.first(x), weight - weight.mean((1, 2, 3), keepdim=True), self.second.bias * 2)
        return functional.linear(x.mean((2, 3)), self.third.weight * 0.5, self.third.bias)


@pytest.mark.parametrize(
    ("build", "size", "dtype"),
    [
        (UNet, (3, 16, 16), torch.float32),
        (LlamaBlock, (10, 32), torch.float32),
        (Shared, (7,), torch.int64),
        (Computed, (3, 8, 8), torch.float32),
    ],
)
def test_odd_model(build, size, dtype):
    module, inputs = build(), {"x": torch.zeros(BATCH, *size, dtype=dtype)}
    assert nominal_operations(export(module, inputs, loss="cross_entropy")) == counted_operations(module, inputs)


def test_skips_of_a_unet_are_read_where_they_join():
    layers = {layer.name: layer for layer in export(UNet(), torch.zeros(BATCH, 3, 16, 16)).layers}
    assert layers["join2.0"].inputs == ("up2", "down2.2")
    assert layers["join1.0"].inputs == ("up1", "down1.2")
    assert layers["up1"].transposed


def test_grouped_queries_share_their_keys():
    layers = {layer.name: layer for layer in export(LlamaBlock(), torch.zeros(BATCH, 10, 32)).layers}
    attention = layers["attention"]
    assert (attention.heads, attention.kv_heads, attention.causal) == (4, 2, True)
    assert attention.inputs[2] == "v"


def test_tied_and_repeated_weights_have_one_name():
    weights = {layer.name: getattr(layer, "weight", None) for layer in export(Shared(), tokens()["input_ids"]).layers}
    assert weights == {
        "table": "table.weight",
        "mix": "mix.weight",
        "relu": None,
        "add": None,
        "norm": "norm.weight",
        "mix_1": "mix.weight",
        "relu_1": None,
        "add_1": None,
        "norm_1": "norm.weight",
        "head": "table.weight",
    }
