"""The shipped networks as their usual PyTorch definitions have them, with the usual names of their modules.

Run as a program it writes `accel/networks/*.json`, the exporter's traces of them, and the JSON Schema of a trace.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from accel.models.exporter import export
from accel.models.zoo_convolutions import VGG19, BasicBlock, Bottleneck, MobileNetV2, ResNet, ResNet9
from accel.models.zoo_transformers import GPT2, Bert, VisionTransformer
from accel.trace import Trace


class MLP(nn.Module):
    """784-1024-1024-10 with ReLU on 28x28 images of one channel."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.fc1, self.relu1 = nn.Linear(784, 1024), nn.ReLU()
        self.fc2, self.relu2 = nn.Linear(1024, 1024), nn.ReLU()
        self.fc3 = nn.Linear(1024, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes."""
        x = self.relu1(self.fc1(x.flatten(1)))
        return self.fc3(self.relu2(self.fc2(x)))


@dataclass(frozen=True)
class Network:
    """How to make a network, and the sizes of its inputs per sample (tokens: one size)."""

    build: Callable[[], nn.Module]
    inputs: dict[str, tuple[int, ...]]

    def module(self) -> nn.Module:
        """Return the network without data: only sizes matter to a trace."""
        with torch.device("meta"):
            return self.build()

    def example_inputs(self, batch: int) -> dict[str, torch.Tensor]:
        """Return inputs for `batch` samples: token numbers where there is one size, else images."""
        return {
            name: torch.zeros(batch, *size, dtype=torch.int64 if len(size) == 1 else torch.float32, device="meta")
            for name, size in self.inputs.items()
        }

    def trace(self, name: str) -> Trace:
        """Return the trace, cross entropy included."""
        return export(self.module(), self.example_inputs(batch=2), name=name, loss="cross_entropy")


def _image(size: int, channels: int = 3) -> dict[str, tuple[int, ...]]:
    return {"x": (channels, size, size)}


_RESNET18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
_VIT_CIFAR = partial(VisionTransformer, image=32, patch=4, width=512, depth=6, heads=8, hidden=512, classes=10)

NETWORKS: dict[str, Network] = {
    "bert-base": Network(Bert, {"input_ids": (128,), "token_type_ids": (128,)}),
    "gpt2": Network(GPT2, {"input_ids": (1024,)}),
    "mlp": Network(MLP, _image(28, channels=1)),
    "mobilenetv2": Network(MobileNetV2, _image(224)),
    "resnet9": Network(ResNet9, _image(32)),
    "resnet18": Network(_RESNET18, _image(224)),
    "resnet18-64": Network(partial(_RESNET18, classes=200, small_stem=True), _image(64)),
    "resnet50": Network(partial(ResNet, Bottleneck, (3, 4, 6, 3)), _image(224)),
    "vgg19": Network(VGG19, _image(32)),
    "vit-b16": Network(VisionTransformer, _image(224)),
    "vit-cifar": Network(_VIT_CIFAR, _image(32)),
}


def schema_text() -> str:
    """Return the JSON Schema of a trace file as text."""
    return json.dumps(Trace.json_schema(), indent=1) + "\n"


def main(root: Path = Path(__file__).parents[2]) -> None:
    """Write the networks and the schema into the checkout at `root`."""
    for name, network in NETWORKS.items():
        network.trace(name).save(root / "accel" / "networks" / f"{name}.json")
    (root / "docs" / "trace.schema.json").write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
