"""Two small classification tasks: scikit-learn's digits, and waves made from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.errors import ConfigError

CLASSES = 10
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """Samples (count, 1, sizes), zero mean and unit variance over the training set, and their labels."""

    train_x: NDArray[np.float32]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]

    def first(self, samples: int | None) -> Data:
        """Return the data with at most `samples` of the training and of the test set."""
        return Data(self.train_x[:samples], self.train_y[:samples], self.test_x[:samples], self.test_y[:samples])


def digits(seed: int) -> Data:
    """Return scikit-learn's 1797 digits of 8 x 8 pixels, split by `seed`: three quarters to train on."""
    try:
        datasets: Any = import_module("sklearn.datasets")
    except ImportError:
        raise ConfigError(
            "task digits needs scikit-learn, which is not installed; install it with: pip install 'nm-accel[experiment]'"
        ) from None
    images, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    samples = images.reshape(-1, 1, 8, 8)[order]
    return _data(samples, labels[order], 3 * len(images) // 4)


def waves(seed: int) -> Data:
    """Return 3000 training and 2000 test waves of 40 points: a class is a template, moved, scaled, tilted and under noise.

    The templates are the same for every seed; the samples are not. After MNIST-1D (Greydanus and Kobak, arXiv 2011.14439).
    """
    rng = np.random.default_rng([seed, 40])
    labels = rng.integers(0, CLASSES, 5000)
    samples = _templates()[labels]
    samples = _moved(rng, samples) * rng.uniform(0.5, 1.5, (5000, 1))
    tilt = rng.normal(0, 0.3, (5000, 1)) * np.linspace(-1, 1, 40)
    noise = 0.5 * _smooth(rng.normal(size=(5000, 40)), 2.0) + 0.2 * rng.normal(size=(5000, 40))
    return _data((samples + tilt + noise)[:, None], labels, 3000)


TASKS: dict[str, Callable[[int], Data]] = {"digits": digits, "waves": waves}


def _data(samples: _Floats, labels: NDArray[Any], train: int) -> Data:
    mean, deviation = samples[:train].mean(), samples[:train].std()
    scaled = ((samples - mean) / deviation).astype(np.float32)
    labels = labels.astype(np.int64)
    return Data(scaled[:train], labels[:train], scaled[train:], labels[train:])


def _templates() -> _Floats:
    """Return (classes, 40): smooth random waves that die out at both ends, of unit variance."""
    rng = np.random.default_rng(1234)
    shapes: _Floats = _smooth(rng.normal(size=(CLASSES, 40)), 2.0) * np.hanning(40)
    deviation: _Floats = shapes.std(axis=1, keepdims=True)
    return shapes / deviation


def _moved(rng: np.random.Generator, samples: _Floats) -> _Floats:
    """Return the samples shifted round by up to 8 points either way."""
    shift = rng.integers(-8, 9, (len(samples), 1))
    return np.take_along_axis(samples, (np.arange(samples.shape[1]) - shift) % samples.shape[1], axis=1)


def _smooth(noise: _Floats, width: float) -> _Floats:
    """Return `noise` filtered along its last dimension with a Gaussian of `width` points, unit variance."""
    kernel = np.exp(-0.5 * (np.arange(-8, 9) / width) ** 2)
    kernel /= np.sqrt((kernel**2).sum())
    return np.stack([np.convolve(row, kernel, "same") for row in noise])
