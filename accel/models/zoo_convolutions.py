"""Convolutional networks of the zoo."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def _conv(inputs: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that keeps the map's size at stride 1."""
    return nn.Conv2d(inputs, channels, kernel, stride, kernel // 2, groups=groups, bias=False)


class _ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU and, if asked for, max pool."""

    def __init__(self, inputs: int, channels: int, pool: bool = False) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = _conv(inputs, channels, 3), nn.BatchNorm2d(channels), nn.ReLU()
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.relu(self.bn(self.conv(x))))


class _Pair(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.res1, self.res2 = _ConvBlock(channels, channels), _ConvBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.res2(self.res1(x))


class _Stage(_ConvBlock):
    """A convolution block with max pool, then a residual pair."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(inputs, channels, pool=True)
        self.residual = _Pair(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(super().forward(x))


class ResNet9(nn.Module):
    """The ResNet-9 of DAWNBench on CIFAR-10: eight 3x3 convolutions, two residual pairs, one linear layer."""

    def __init__(self, classes: int = 10) -> None:
        """Make the layers."""
        super().__init__()
        self.prep = _ConvBlock(3, 64)
        self.layer1, self.layer2, self.layer3 = _Stage(64, 128), _ConvBlock(128, 256, pool=True), _Stage(256, 512)
        self.pool, self.linear = nn.MaxPool2d(4), nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        x = self.layer3(self.layer2(self.layer1(self.prep(x))))
        return self.linear(self.pool(x).flatten(1))


class VGG19(nn.Module):
    """The CIFAR-10 form of VGG-19: batch norm, convolutions with bias, one linear layer."""

    def __init__(self, classes: int = 10) -> None:
        """Make the layers."""
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for channels, convs in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
            for _ in range(convs):
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
                before = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        return self.classifier(self.features(x).flatten(1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a short cut."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        """Make the layers."""
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, channels, 3, stride), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = _conv(channels, channels, 3), nn.BatchNorm2d(channels)
        self.downsample = _downsample(inputs, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's result."""
        branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(branch + self.downsample(x))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, beside a short cut."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        """Make the layers."""
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, channels, 1), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = _conv(channels, channels, 3, stride), nn.BatchNorm2d(channels)
        self.conv3, self.bn3 = _conv(channels, 4 * channels, 1), nn.BatchNorm2d(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(inputs, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's result."""
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(branch)))))
        return self.relu(branch + self.downsample(x))


def _downsample(inputs: int, channels: int, stride: int) -> nn.Module:
    """Return what gives the short cut the shape of the branch."""
    if stride == 1 and inputs == channels:
        return nn.Identity()
    return nn.Sequential(_conv(inputs, channels, 1, stride), nn.BatchNorm2d(channels))


class ResNet(nn.Module):
    """torchvision's ResNet; the small stem is a 3x3 convolution at stride 1 without max pool."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        classes: int = 1000,
        small_stem: bool = False,
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.conv1 = _conv(3, 64, 3) if small_stem else _conv(3, 64, 7, 2)
        self.bn1, self.relu = nn.BatchNorm2d(64), nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_stem else nn.MaxPool2d(3, 2, 1)
        before = 64
        for group, count in enumerate(blocks):
            channels = 64 * 2**group
            found: list[nn.Module] = []
            for index in range(count):
                found.append(block(before, channels, 2 if group > 0 and index == 0 else 1))
                before = channels * block.expansion
            self.add_module(f"layer{group + 1}", nn.Sequential(*found))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class _ConvNormActivation(nn.Sequential):
    """Convolution, batch norm, ReLU6."""

    def __init__(self, inputs: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(_conv(inputs, channels, kernel, stride, groups), nn.BatchNorm2d(channels), nn.ReLU6(inplace=True))


class _InvertedResidual(nn.Module):
    """A depthwise convolution on widened channels."""

    def __init__(self, inputs: int, channels: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        widen = [_ConvNormActivation(inputs, wide, 1)] if expand > 1 else []
        self.conv = nn.Sequential(
            *widen, _ConvNormActivation(wide, wide, 3, stride, wide), _conv(wide, channels, 1), nn.BatchNorm2d(channels)
        )
        self.adds = stride == 1 and inputs == channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    """torchvision's MobileNetV2."""

    def __init__(self, classes: int = 1000) -> None:
        """Make the layers."""
        super().__init__()
        layers: list[nn.Module] = [_ConvNormActivation(3, 32, 3, 2)]
        before = 32
        for expand, channels, count, stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for repeat in range(count):
                layers.append(_InvertedResidual(before, channels, stride if repeat == 0 else 1, expand))
                before = channels
        self.features = nn.Sequential(*layers, _ConvNormActivation(before, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        x = functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))
