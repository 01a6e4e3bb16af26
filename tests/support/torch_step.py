"""One training step of a module in PyTorch, on the machine's arithmetic or in float32, parameters as programs store them."""

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from accel.models.exporter import export
from accel.models.machine import on_machine
from accel.models.small import SmallCnn, SmallVit
from accel.models.sparse import sparsify
from accel.models.wuve import WuveSGD


class ResidualCnn(nn.Module):
    """Two branches that meet, max and average pooling, a bias before a norm, and an image that a linear layer flattens."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2)
        self.fc = nn.Linear(64, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = functional.max_pool2d(torch.relu(self.norm1(self.stem(x))), 3, 2, 1)
        x = torch.relu(self.norm2(self.conv2(x)) + self.shortcut(x))
        x = functional.adaptive_avg_pool2d(x, 2)
        return self.head(torch.relu(self.fc(x.flatten(1))))


class Transformer(nn.Module):
    """One block on tokens: three readers of a norm, two sums, a mean over the tokens."""

    def __init__(self, features=16, heads=2):
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(6, features)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(features) for _ in range(3))
        self.query, self.key, self.value, self.project = (nn.Linear(features, features) for _ in range(4))
        self.widen, self.narrow = nn.Linear(features, 2 * features), nn.Linear(2 * features, features)
        self.head = nn.Linear(features, 5)

    def forward(self, x):
        x = self.embed(x)
        inner = self.norm1(x)
        query, key, value = (
            part(inner).view(*x.shape[:2], self.heads, -1).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        x = x + self.narrow(functional.gelu(self.widen(self.norm2(x))))
        return self.head(self.norm3(x).mean(1))


IMAGE = (8, 8)
NETWORKS = {
    "cnn": (ResidualCnn, (3, 8, 8)),
    "transformer": (Transformer, (5, 6)),
    "small cnn": (lambda: SmallCnn(IMAGE), (1, *IMAGE)),
    "small vit": (lambda: SmallVit(IMAGE), (1, *IMAGE)),
}


def network(kind, seed=0):
    """Return a module, a batch of FP16 numbers in torch's layout, and labels."""
    torch.manual_seed(seed)
    make, size = NETWORKS[kind]
    module = make()
    for name, parameter in module.named_parameters():
        if "norm" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return module, torch.randn(4, *size).half().float(), torch.randint(0, 5, (4,))


def trace_of(module, x):
    return export(module, x, name="net", loss="cross_entropy")


def stored_weights(module):
    """Return the parameters as `initial_tensors` takes them."""
    found = {}
    for path, part in module.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            found[path] = part.weight.detach().movedim(1, -1)
            if part.bias is not None:
                found[f"{path} bias"] = part.bias.detach()
        elif isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
            found[path] = torch.stack([part.weight, part.bias]).detach()
        else:  # parameters that are added, position by position
            named = part.named_parameters(prefix=path, recurse=False)
            found.update((name, parameter.detach().reshape(-1)) for name, parameter in named)
    return {name: np.ascontiguousarray(value.numpy()).copy() for name, value in found.items()}


def stored_batch(x, labels):
    """Return a batch as `program_step` takes it: images channels last."""
    values = x.movedim(1, -1) if x.dim() == 4 else x
    return np.ascontiguousarray(values.numpy().astype(np.float16)), labels.numpy()


def torch_step(module, x, labels, rule, scale=1.0, method="dense", pattern="2:4", dense_layers=None, machine=True):
    """Return the parameters after one step of a copy of `module`."""
    module = copy.deepcopy(module)
    optimizer = WuveSGD(module.parameters(), rule.lr, rule.momentum, rule.decay, scale=scale)
    if method != "dense":
        changes = {"decay": rule.sparse_decay, "masked_update": rule.masked}
        sparsify(module, method, pattern, exclude=dense_layers, loss_scale=optimizer.scale, **changes)
    if machine:
        on_machine(module, threads=1, vector_ops="machine")
    optimizer.scale_loss(functional.cross_entropy(module(x), labels)).backward()
    optimizer.step()
    return stored_weights(module)
