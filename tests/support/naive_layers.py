"""Weight layers with loops: which weights a pattern keeps, and the rows and columns of FF, BP and WU one element at a time."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from accel.golden.gemm import gemm
from accel.golden.numeric import to_fp16
from accel.golden.prune import prune
from accel.sparsity import DENSE, NMPattern


@dataclass(frozen=True)
class Layer:
    """A convolution over `size` (nothing: a linear layer)."""

    size: tuple
    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int
    channels_in: int
    """Of one convolution group."""
    channels_out: int
    batch: int
    pattern: NMPattern

    @property
    def weight_shape(self):
        return (self.groups * self.channels_out, self.channels_in, *self.kernel)

    @property
    def in_shape(self):
        return (self.batch, self.groups * self.channels_in, *self.size)

    @property
    def out_size(self):
        sizes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((size + 2 * pad - dil * (taps - 1) - 1) // step + 1 for size, taps, step, pad, dil in sizes)

    @property
    def out_shape(self):
        return (self.batch, self.groups * self.channels_out, *self.out_size)

    @property
    def taps(self):
        return grid(self.kernel)

    def read_by(self, pixel, tap):
        """Return the input pixel that `tap` of output `pixel` reads, None in the padding."""
        sizes = zip(pixel, tap, self.stride, self.padding, self.dilation, strict=True)
        read = tuple(at * step + offset * dil - pad for at, offset, step, pad, dil in sizes)
        return read if inside(read, self.size) else None

    def written_by(self, pixel, tap):
        """Return whether `tap` meets input `pixel`, and from which output pixel (None: beyond the edge)."""
        sizes = zip(pixel, tap, self.stride, self.padding, self.dilation, strict=True)
        steps = [divmod(at + pad - offset * dil, step) for at, offset, step, pad, dil in sizes]
        if any(rest for _, rest in steps):
            return False, None
        source = tuple(whole for whole, _ in steps)
        return True, source if inside(source, self.out_size) else None


def grid(sizes):
    return list(product(*(range(size) for size in sizes)))


def inside(position, sizes):
    return all(0 <= at < size for at, size in zip(position, sizes, strict=True))


def keep_mask(values, pattern):
    """Return which of a vector's finite `values` survive."""
    mask = np.zeros(len(values), bool)
    for start in range(0, len(values), pattern.group):
        places = range(start, min(start + pattern.group, len(values)))
        for place in sorted(places, key=lambda at: (-abs(float(values[at])), at))[: pattern.keep]:
            mask[place] = True
    return mask


def ff_mask(weight, pattern):
    """Return what survives along the input channels of (out, in, taps)."""
    return np.apply_along_axis(keep_mask, 1, weight, pattern)


def bp_mask(weight, pattern, groups):
    """Return what survives along the output channels of each convolution group."""
    return np.concatenate([np.apply_along_axis(keep_mask, 0, part, pattern) for part in np.split(weight, groups)])


def pixels_mask(grad, pattern):
    """Return what survives of dY (batch, channels, pixels) along batch and pixels, row-major."""
    rows = np.moveaxis(grad, 1, -1)
    mask = np.apply_along_axis(keep_mask, 0, rows.reshape(-1, rows.shape[-1]), pattern)
    return np.moveaxis(mask.reshape(rows.shape), -1, 1)


def machine_forward(layer, x, weight, pattern):
    """Return Y of the machine: FP16 operands (batch, channels, pixels) and (out, in, taps)."""
    out = np.zeros(layer.out_shape, np.float16)
    for group, sample, pixel in product(range(layer.groups), range(layer.batch), grid(layer.out_size)):
        ins, outs = channels(group, layer.channels_in), channels(group, layer.channels_out)
        reads = [layer.read_by(pixel, tap) for tap in layer.taps]
        lhs = np.concatenate([pixel_of(x[sample, ins], read) for read in reads])
        rhs = np.concatenate([weight[outs][(slice(None), slice(None), *tap)].T for tap in layer.taps])
        out[(sample, outs, *pixel)] = to_fp16(gemm(lhs[None], prune(rhs, pattern, len(reads))))[0]
    return out


def machine_input_grad(layer, grad, weight, weight_pattern, grad_pattern=DENSE):
    """Return dX of the machine; one of the two operands may be pruned."""
    result = np.zeros(layer.in_shape, np.float16)
    for group, sample, pixel in product(range(layer.groups), range(layer.batch), grid(layer.size)):
        ins, outs = channels(group, layer.channels_in), channels(group, layer.channels_out)
        met = [(tap, layer.written_by(pixel, tap)[1]) for tap in layer.taps if layer.written_by(pixel, tap)[0]]
        if not met:
            continue
        lhs = np.concatenate([pixel_of(grad[sample, outs], source) for _, source in met])
        rhs = np.concatenate([weight[outs][(slice(None), slice(None), *tap)] for tap, _ in met])
        if grad_pattern.is_dense:
            row = gemm(lhs[None], prune(rhs, weight_pattern, len(met)))[0]
        else:
            row = gemm(np.ascontiguousarray(rhs.T), prune(lhs[:, None], grad_pattern, len(met)))[:, 0]
        result[(sample, ins, *pixel)] = to_fp16(row)
    return result


def machine_weight_grad(layer, x, grad, pattern):
    """Return dW of the machine, FP32."""
    result = np.zeros(layer.weight_shape, np.float32)
    rows = list(product(range(layer.batch), grid(layer.out_size)))
    for group, tap in product(range(layer.groups), layer.taps):
        ins, outs = channels(group, layer.channels_in), channels(group, layer.channels_out)
        lhs = np.stack([pixel_of(x[sample, ins], layer.read_by(pixel, tap)) for sample, pixel in rows], axis=1)
        rhs = np.stack([grad[(sample, outs, *pixel)] for sample, pixel in rows])
        result[(outs, slice(None), *tap)] = gemm(lhs, prune(rhs, pattern)).T
    return result


def channels(group, count):
    return slice(group * count, (group + 1) * count)


def pixel_of(image, pixel):
    """Return the channels of one pixel of (channels, pixels), zeros for None."""
    return np.zeros(len(image), image.dtype) if pixel is None else image[(slice(None), *pixel)]
