"""The two small networks of the experiment, for images and for sequences; what is pruned has 16 channels or more."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from accel.models.tasks import CLASSES

DENSE_LAYERS = ("stem", "head")
"""The first layer, of a few channels, and the classifier of 10 outputs stay dense."""


class SmallCnn(nn.Module):
    """Three convolutions with batch norm, average pooling and a classifier."""

    def __init__(self, size: tuple[int, ...]) -> None:
        """Make the network for samples (1, *size)."""
        super().__init__()
        one = len(size) == 1
        conv = nn.Conv1d if one else nn.Conv2d
        norm = nn.BatchNorm1d if one else nn.BatchNorm2d
        self.stem = conv(1, 16, 3, padding=1, bias=False)
        self.norm1 = norm(16)
        self.conv2 = conv(16, 32, 3, stride=2, padding=1, bias=False)
        self.norm2 = norm(32)
        self.conv3 = conv(32, 64, 3, stride=2, padding=1, bias=False)
        self.norm3 = norm(64)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = torch.relu(self.norm1(self.stem(x)))
        x = torch.relu(self.norm2(self.conv2(x)))
        x = torch.relu(self.norm3(self.conv3(x)))
        logits: Tensor = self.head(x.flatten(2).mean(2))
        return logits


class SmallVit(nn.Module):
    """Patches, two encoder blocks of 32 features, mean over the tokens and a classifier."""

    def __init__(self, size: tuple[int, ...]) -> None:
        """Make the network for samples (1, *size): patches of 4 points or of 2 x 2 pixels."""
        super().__init__()
        self.patch = 4 if len(size) == 1 else 2
        conv = nn.Conv1d if len(size) == 1 else nn.Conv2d
        self.stem = conv(1, 32, self.patch, stride=self.patch)
        self.position = nn.Parameter(0.02 * torch.randn(prod(points // self.patch for points in size), 32))
        self.blocks = nn.Sequential(_Block(32, 2), _Block(32, 2))
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


class _Block(nn.Module):
    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.query, self.key = nn.Linear(features, features), nn.Linear(features, features)
        self.value, self.project = nn.Linear(features, features), nn.Linear(features, features)
        self.widen, self.narrow = nn.Linear(features, 2 * features), nn.Linear(2 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm1(x)
        query, key, value = (self._split(part(inner)) for part in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + self.narrow(functional.gelu(self.widen(self.norm2(x))))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


NETWORKS: dict[str, type[SmallCnn | SmallVit]] = {"cnn": SmallCnn, "vit": SmallVit}
