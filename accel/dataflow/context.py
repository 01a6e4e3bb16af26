"""What every pass of the lowering knows: the trace, the options and which layers are pruned."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

from accel.errors import ConfigError
from accel.methods import Method, Optimizer
from accel.sparsity import DENSE, NMPattern
from accel.trace import Conv, Layer, Linear, Trace, Vector
from accel.units import ceil_div


@dataclass(frozen=True)
class Options:
    """What a step is lowered for, besides the trace."""

    batch: int
    method: Method
    pattern: NMPattern
    optimizer: Optimizer
    word_elems: int
    """Elements of a memory word (the machine's group): channels are stored in whole words."""
    dense_layers: tuple[str, ...] | None = None
    """Name patterns of weight layers that stay dense; None: the first weight layer."""
    pregenerate: bool = True
    """Compact weights are written by the update; otherwise SORE prunes dense weights on every load."""

    def stored(self, channels: int) -> int:
        """Return the elements that `channels` take in memory."""
        return ceil_div(channels, self.word_elems) * self.word_elems


@dataclass(frozen=True)
class Context:
    """A trace, the options it is lowered for, and what follows from both."""

    trace: Trace
    options: Options

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        """The layers by their names."""
        return {layer.name: layer for layer in self.trace.layers}

    @cached_property
    def pruned_layers(self) -> frozenset[str]:
        """Weight layers that the method may prune."""
        names = [layer.name for layer in self.trace.layers if isinstance(layer, Conv | Linear)]
        globs = self.options.dense_layers
        if globs is None:
            return frozenset(names[1:])
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in names):
                raise ConfigError(f"dense_layers must match a weight layer of {self.trace.name}, not {glob!r}")
        return frozenset(name for name in names if not any(fnmatchcase(name, glob) for glob in globs))

    def pattern(self, layer: Conv | Linear, inner: int) -> NMPattern:
        """Return the pattern along `inner` reduction elements, dense where the layer is exempt or nothing would be pruned."""
        pattern = self.options.pattern
        useful = layer.name in self.pruned_layers and not pattern.is_dense and pattern.kept_of(inner) < inner
        return pattern if useful else DENSE

    def repeats(self, layer: Layer | None) -> int:
        """Return how often a step does the work of `layer`: for every sample, or once."""
        return 1 if isinstance(layer, Vector) and layer.per_step else self.options.batch

    @cached_property
    def readers(self) -> dict[str, list[Layer]]:
        """The layers that read each tensor."""
        readers: dict[str, list[Layer]] = {}
        for layer in self.trace.layers:
            for source in dict.fromkeys(layer.inputs):
                readers.setdefault(source, []).append(layer)
        return readers

    def sole_reader(self, layer: Layer) -> Layer | None:
        """Return the layer that alone reads the output of `layer`, if there is just one."""
        readers = self.readers.get(layer.name, [])
        return readers[0] if len(readers) == 1 else None
