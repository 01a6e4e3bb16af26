"""The operators of a program's vector unit: attributes and tensors to the golden functions of `accel.golden.vector`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.access import Access
from accel.gemm import Stage
from accel.golden.gemm import gemm
from accel.golden.interpreter_memory import Dram, DramOfSamples, Fault, Tile
from accel.golden.numeric import Float16s, Float32s, to_fp16
from accel.golden.vector import losses, norms, pooling, tensors, unary
from accel.golden.vector.arithmetic import flush
from accel.program import Kernel, Site
from accel.trace import Attributes
from accel.vector_ops import VECTOR_OPS

Array = NDArray[Any]

_SAVING_INPUT = frozenset(str(op) for op, cost in VECTOR_OPS.items() if cost.saves == "input")


class Operator(NamedTuple):
    """Forward: result from inputs. Backward: gradients of the inputs and of the parameters (or None) from dy, y and inputs.

    One that keeps a mask or an index gives it beside its result, and has it in the backward pass in place of y and inputs.
    """

    forward: Callable[[Work, Sequence[Array]], Any]
    backward: Callable[[Work, Array, Array, Sequence[Array]], tuple[Sequence[Array], Array | None]]
    keeps: bool = False


@dataclass(frozen=True)
class Work:
    """What an operator gets besides its tensors."""

    attributes: Attributes
    params: Float32s | None
    target: Any
    """Of a loss."""
    loss_scale: float

    def number(self, name: str) -> Any:
        """Return an attribute."""
        if name not in self.attributes:
            raise Fault(f"attributes must have {name!r}, not only {', '.join(sorted(self.attributes))}")
        return self.attributes[name]

    def scale_and_shift(self, size: int) -> tuple[Float32s, Float32s]:
        """Return the parameters of a norm: ones and zeros where it has none."""
        found = np.zeros(0, np.float32) if self.params is None else self.params
        if found.size not in (0, size, 2 * size):
            raise Fault(f"params must be none, {size} or {2 * size}, not {found.size}")
        scale = found[:size] if found.size else np.ones(size, np.float32)
        return scale, found[size:] if found.size == 2 * size else np.zeros(size, np.float32)

    def param_grad(self, scale: Float32s, shift: Float32s) -> Float32s | None:
        """Return the gradients of those parameters that there are, one after the other."""
        if self.params is None:
            return None
        return np.concatenate([scale, shift])[: self.params.size]


@dataclass(frozen=True)
class VectorUnit:
    """Does kernels; gradients of losses are times `loss_scale`."""

    loss_scale: float

    def on_tile(self, kernel: Kernel, tile: Tile, dram: Dram) -> Array:
        """Return the results of a tile after `kernel`."""
        function = _function(kernel)
        if function == "statistics":  # the norm finds the same sums in the stored tensor: docs/numerics.md, section 1
            return tile.values
        if function != "bias":
            raise Fault(f"{kernel.op} must be bias or statistics to work on a tile")
        rows, cols = np.arange(tile.row, tile.row + tile.rows), np.arange(tile.col, tile.col + tile.cols)
        return self._with_bias(kernel, dram, tile.values, tile.repeat, rows, cols)

    def stream(self, kernel: Kernel, site: Site, dram: Dram) -> None:
        """Do a kernel on whole tensors, or on some samples of them."""
        if kernel.samples is not None and (kernel.op == "product" or not _is_by_sample(kernel, site)):
            raise Fault(f"samples of {kernel.op} must be null, not {list(kernel.samples)}: it is no operator by samples")
        if kernel.op == "product":
            _multiply(kernel, dram)
            return
        function = _function(kernel)
        special = {
            "gradient sum": _add_gradients,
            "zeros": _write_zeros,
            "bias gradient": _add_up_bias,
            "parameter gradient": _add_up_parameters,
            "attention softmax": _attention_softmax,
        }
        if kernel.samples is not None:
            dram = _of_samples(kernel, function, kernel.samples, dram)
        if function in special:
            special[function](kernel, site, dram)
        elif function == "bias":
            self._bias_in_dram(kernel, dram)
        elif function == "statistics":
            pass
        elif function not in OPERATORS:
            raise Fault(f"{kernel.op} must be a function that can be interpreted, not {function!r}")
        elif site.stage is Stage.FORWARD:
            self._forward(kernel, site, dram, OPERATORS[function])
        else:
            self._backward(kernel, site, dram, OPERATORS[function])

    def _forward(self, kernel: Kernel, site: Site, dram: Dram, operator: Operator) -> None:
        names = [dram.name(number) for number in kernel.reads]
        inputs = [dram.read(name) for name in names[: self._inputs(kernel, 0)]]
        result = operator.forward(self._work(kernel, site, dram), inputs)
        for number, values in zip(kernel.writes, result if operator.keeps else (result,), strict=True):
            dram.write(dram.name(number), values)

    def _backward(self, kernel: Kernel, site: Site, dram: Dram, operator: Operator) -> None:
        """Read dy, y, inputs and parameters; write gradients of the inputs that want one, then of the parameters.

        An operator that saves its input does not read y: where its gradient is a function of y, that is found again.
        """
        names, work = [dram.name(number) for number in kernel.reads], self._work(kernel, site, dram)
        dy = np.zeros(0, np.float16) if _is_loss(kernel) else dram.read(names[0])
        if operator.keeps:
            grads, of_params = operator.backward(work, dy, dram.read(names[1]), [])
        else:
            before = 1 if kernel.op in _SAVING_INPUT else 2
            inputs = [dram.read(name) for name in names[before : before + self._inputs(kernel, before)]]
            y = operator.forward(work, inputs) if before == 1 else dram.read(names[1])
            grads, of_params = operator.backward(work, dy, y, inputs)
        wanted = (kernel.attributes or {})["wanted"]
        found = [grads[at] for at in (wanted if isinstance(wanted, tuple) else ())]
        if len(kernel.writes) > len(found) and of_params is not None:
            found.append(of_params)
        if len(found) != len(kernel.writes):
            raise Fault(f"{kernel.op} must write {len(kernel.writes)} gradients, not {len(found)}")
        for number, value in zip(kernel.writes, found, strict=True):
            dram.write(dram.name(number), value)

    def _inputs(self, kernel: Kernel, before: int) -> int:
        """Return how many inputs a kernel reads after `before` other tensors, parameters last."""
        attributes = kernel.attributes or {}
        count, params = attributes.get("inputs"), attributes.get("params")
        if not isinstance(count, int) or len(kernel.reads) != before + count + bool(params):
            raise Fault(
                f"{kernel.op} must read {before} tensors, its inputs and parameters, each once, not {len(kernel.reads)}"
            )
        return count

    def _work(self, kernel: Kernel, site: Site, dram: Dram) -> Work:
        attributes = kernel.attributes or {}
        params = dram.read(dram.name(kernel.reads[-1])) if attributes.get("params") else None
        target = dram.read(f"{site.layer} target") if _is_loss(kernel) else None
        return Work(attributes, params, target, self.loss_scale)

    def _bias_in_dram(self, kernel: Kernel, dram: Dram) -> None:
        """Add a bias to the results of a product on the vector unit: channels are the last axis."""
        results, bias = (dram.read(dram.name(number)) for number in kernel.reads)
        shape = results.shape
        dram.write(dram.name(kernel.writes[0]), tensors.bias_add(results.reshape(-1, len(bias)), bias).reshape(shape))

    def _with_bias(
        self, kernel: Kernel, dram: Dram, results: Float16s, repeat: int, rows: NDArray[np.int64], cols: NDArray[np.int64]
    ) -> Float16s:
        (access,) = kernel.accesses
        bias = dram.read(dram.name(kernel.reads[0]))
        places, _ = access.places(repeat, rows, None, cols)
        return tensors.bias_add(results, bias[places])


def _function(kernel: Kernel) -> str:
    function = (kernel.attributes or {}).get("function")
    if not isinstance(function, str):
        raise Fault(f"{kernel.op} must have attributes to be executed, not none; export the network again")
    return function


def _is_by_sample(kernel: Kernel, site: Site) -> bool:
    function = _function(kernel)
    return function == "attention softmax" or (function in OPERATORS and site.stage is Stage.FORWARD)


def _of_samples(kernel: Kernel, function: str, samples: tuple[int, int], dram: Dram) -> Dram:
    """Return DRAM for the samples of `kernel`; a batch norm reads all samples, whose sums it has by then."""
    has_params = bool((kernel.attributes or {}).get("params"))
    cut = () if function == "batch_norm" else kernel.reads[: len(kernel.reads) - has_params]
    return DramOfSamples(dram, samples, frozenset(map(dram.name, cut)))


def _is_loss(kernel: Kernel) -> bool:
    return kernel.op in ("cross_entropy", "mse_loss")


def _multiply(kernel: Kernel, dram: Dram) -> None:
    """Do a product on the vector unit: the same sums in the same order."""
    if len(kernel.accesses) != 3 or len(kernel.reads) != 2:
        raise Fault("operands must be whole and as they are stored to be executed, not parts, in another order or shared")
    lhs, rhs, out = kernel.accesses
    (left, right), written = (dram.name(number) for number in kernel.reads), dram.name(kernel.writes[0])
    for repeat in range(prod(out.repeats)):
        matrices = [_matrix(dram, name, access, repeat) for name, access in ((left, lhs), (right, rhs))]
        total = gemm(matrices[0], np.ascontiguousarray(matrices[1].T))
        places, _ = out.places(repeat, np.arange(prod(out.rows)))
        is_grad = dram.tables.tensors[kernel.writes[0]].format == "fp32"
        dram.scatter(written, out.shape, places, total if is_grad else to_fp16(total))


def _matrix(dram: Dram, name: str, access: Access, repeat: int) -> Float16s:
    """Return (rows, k)."""
    taps, inner = prod(access.taps), prod(access.inner)
    numbers = np.arange(taps * inner)
    places, exists = access.places(repeat, np.arange(prod(access.rows)), numbers // inner, numbers % inner)
    return dram.gather(name, access.shape, places, exists)


def _add_gradients(kernel: Kernel, site: Site, dram: Dram) -> None:
    first, *others = (dram.read(dram.name(number)) for number in kernel.reads)
    total = tensors.add_gradients(first.reshape(-1), *(other.reshape(-1) for other in others))
    dram.write(dram.name(kernel.writes[0]), total.reshape(first.shape))


def _write_zeros(kernel: Kernel, site: Site, dram: Dram) -> None:
    (access,) = kernel.accesses
    for repeat in range(prod(access.repeats)):
        places, _ = access.places(repeat, np.arange(prod(access.rows)))
        dram.scatter(dram.name(kernel.writes[0]), access.shape, places, np.zeros(places.shape, np.float16))


def _add_up_bias(kernel: Kernel, site: Site, dram: Dram) -> None:
    (number,) = kernel.reads
    grad = dram.read(dram.name(number))
    dram.write(dram.name(kernel.writes[0]), tensors.bias_grad(grad))


def _add_up_parameters(kernel: Kernel, site: Site, dram: Dram) -> None:
    """Every sample had the same parameters added: their gradients are those of a bias of that many channels."""
    params = (kernel.attributes or {})["params"]
    assert isinstance(params, int)
    grad = dram.read(dram.name(kernel.reads[0]))
    dram.write(dram.name(kernel.writes[0]), tensors.bias_grad(grad.reshape(-1, params)))


def _attention_softmax(kernel: Kernel, site: Site, dram: Dram) -> None:
    """Scores are scaled in FP32 as they are read, their gradient before it is rounded."""
    attributes = kernel.attributes or {}
    shape, scale = attributes["shape"], attributes["scale"]
    assert isinstance(shape, tuple)
    assert isinstance(scale, int | float)
    kept = losses.causal_mask(*shape[1:]) if attributes["causal"] else None
    factor = np.float32(flush(np.float32(scale)))
    first, *rest = (dram.read(dram.name(number)).reshape(-1, *shape) for number in kernel.reads)
    if site.stage is Stage.FORWARD:
        result = losses.softmax(first, kept, factor)
    else:
        result = losses.softmax_backward(first, rest[0], kept, factor)
    dram.write(dram.name(kernel.writes[0]), result)


def _elementwise(name: str) -> Operator:
    def backward(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
        saved = inputs[0] if unary.UNARY[name].saves == "input" else y
        return [unary.unary_backward(name, dy.reshape(saved.shape), saved)], None

    return Operator(lambda work, inputs: unary.unary(name, inputs[0]), backward)


def _masked(function: Callable[[Float16s], tuple[Float16s, NDArray[np.bool_]]]) -> Operator:
    def backward(work: Work, dy: Array, mask: Array, inputs: Sequence[Array]) -> Any:
        return [unary.masked_backward(dy.reshape(mask.shape), mask)], None

    return Operator(lambda work, inputs: function(inputs[0]), backward, keeps=True)


def _add(work: Work, inputs: Sequence[Array]) -> Array:
    """Return the sum of two tensors, or of one and parameters, the same for every sample."""
    first = inputs[0]
    if work.params is not None:
        return tensors.add(first.reshape(-1, work.params.size), work.params.reshape(1, -1)).reshape(first.shape)
    return tensors.add(first, inputs[1].reshape(first.shape))


def _mul_backward(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
    left, right = inputs
    to_left, to_right = tensors.mul_backward(dy.reshape(-1), left.reshape(-1), right.reshape(-1))
    return [to_left.reshape(left.shape), to_right.reshape(right.shape)], None


def _refuse_backward(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
    raise Fault("an operator whose gradient goes through as it is must have no backward pass")


def _scale_backward(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
    return [tensors.scale(dy, work.number("factor"))], None


def _batch_norm(work: Work, inputs: Sequence[Array]) -> Array:
    (x,), channels = inputs, work.number("channels")
    y, _ = norms.batch_norm(x.reshape(-1, channels), *work.scale_and_shift(channels), work.number("eps"))
    return y.reshape(x.shape)


def _batch_norm_backward(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
    (x,), channels = inputs, work.number("channels")
    (scale, shift), rows = work.scale_and_shift(channels), x.reshape(-1, channels)
    _, statistics = norms.batch_norm(rows, scale, shift, work.number("eps"))
    dx, *of_params = norms.batch_norm_backward(dy.reshape(rows.shape), rows, scale, statistics)
    return [dx.reshape(x.shape)], work.param_grad(*of_params)


def _group_norm(work: Work, inputs: Sequence[Array]) -> Array:
    x, samples, params = _group_norm_parts(work, inputs)
    y, _ = norms.group_norm(samples, *params, work.number("groups"), work.number("eps"))
    return y.reshape(x.shape)


def _group_norm_backward(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
    (x, samples, params), groups = _group_norm_parts(work, inputs), work.number("groups")
    _, statistics = norms.group_norm(samples, *params, groups, work.number("eps"))
    dx, *of_params = norms.group_norm_backward(dy.reshape(samples.shape), samples, params[0], groups, statistics)
    return [dx.reshape(x.shape)], work.param_grad(*of_params)


def _group_norm_parts(work: Work, inputs: Sequence[Array]) -> tuple[Array, Array, tuple[Float32s, Float32s]]:
    shape = work.number("shape")
    return inputs[0], inputs[0].reshape(-1, *shape), work.scale_and_shift(shape[-1])


def _layer_norm(work: Work, inputs: Sequence[Array]) -> Array:
    (x,), features = inputs, work.number("features")
    y, _ = norms.layer_norm(x.reshape(-1, features), *work.scale_and_shift(features), work.number("eps"))
    return y.reshape(x.shape)


def _layer_norm_backward(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
    (x,), features = inputs, work.number("features")
    (scale, shift), rows = work.scale_and_shift(features), x.reshape(-1, features)
    _, statistics = norms.layer_norm(rows, scale, shift, work.number("eps"))
    dx, *of_params = norms.layer_norm_backward(dy.reshape(rows.shape), rows, scale, statistics)
    return [dx.reshape(x.shape)], work.param_grad(*of_params)


def _rms_norm(work: Work, inputs: Sequence[Array]) -> Array:
    (x,), features = inputs, work.number("features")
    y, _ = norms.rms_norm(x.reshape(-1, features), work.scale_and_shift(features)[0], work.number("eps"))
    return y.reshape(x.shape)


def _rms_norm_backward(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
    (x,), features = inputs, work.number("features")
    (scale, shift), rows = work.scale_and_shift(features), x.reshape(-1, features)
    _, inverse = norms.rms_norm(rows, scale, work.number("eps"))
    dx, of_scale = norms.rms_norm_backward(dy.reshape(rows.shape), rows, scale, inverse)
    return [dx.reshape(x.shape)], work.param_grad(of_scale, shift)


def _softmax(work: Work, inputs: Sequence[Array]) -> Array:
    return losses.softmax(inputs[0].reshape(-1, work.number("size"))).reshape(inputs[0].shape)


def _softmax_backward(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
    rows = -1, work.number("size")
    return [losses.softmax_backward(dy.reshape(rows), y.reshape(rows)).reshape(y.shape)], None


def _pixels(work: Work, x: Array) -> Array:
    """Return x as (batch, pixels..., channels)."""
    return x.reshape(-1, *work.number("sizes"), work.number("channels"))


def _windows(work: Work) -> list[pooling.Axis]:
    if "outputs" in work.attributes:
        return pooling.adaptive(work.number("sizes"), work.number("outputs"))
    names = ("sizes", "kernel", "stride", "padding", "dilation", "ceil_mode")
    return pooling.sliding(*(work.number(name) for name in names))


def _max_pool(work: Work, inputs: Sequence[Array]) -> Any:
    return pooling.max_pool(_pixels(work, inputs[0]), _windows(work))


def _max_pool_backward(work: Work, dy: Array, index: Array, inputs: Sequence[Array]) -> Any:
    return [pooling.max_pool_backward(dy.reshape(index.shape), index, _windows(work))], None


def _avg_pool(work: Work, inputs: Sequence[Array]) -> Array:
    return pooling.avg_pool(_pixels(work, inputs[0]), _windows(work), work.number("count_padding"))


def _avg_pool_backward(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
    return [pooling.avg_pool_backward(dy.reshape(y.shape), _windows(work), work.number("count_padding"))], None


def _reduce(forward: Callable[..., Array], backward: Callable[..., Array]) -> Operator:
    """Return a sum or a mean of samples of `shape` along `axes`, which count the batch as axis 0."""

    def there(work: Work, inputs: Sequence[Array]) -> Array:
        return forward(inputs[0].reshape(-1, *work.number("shape")), work.number("axes"))

    def back(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
        shape = len(y), *work.number("shape")
        return [backward(dy.reshape(y.shape), shape, work.number("axes"))], None

    return Operator(there, back)


def _embedding(work: Work, inputs: Sequence[Array]) -> Array:
    assert work.params is not None
    return tensors.embedding(work.params.reshape(-1, work.number("features")), inputs[0])


def _embedding_backward(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
    assert work.params is not None
    features = work.number("features")
    grad = tensors.embedding_grad(dy.reshape(-1, features), inputs[0].reshape(-1), work.params.size // features)
    return [np.zeros(0, np.float16)], grad.reshape(-1)


def _cross_entropy(work: Work, inputs: Sequence[Array]) -> Array:
    logits, labels = _rows_of_loss(work, inputs)
    return losses.cross_entropy(logits, labels, work.number("smoothing"))


def _cross_entropy_backward(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
    logits, labels = _rows_of_loss(work, inputs)
    dx = losses.cross_entropy_backward(logits, labels, work.number("smoothing"), work.loss_scale)
    return [dx.reshape(inputs[0].shape)], None


def _rows_of_loss(work: Work, inputs: Sequence[Array]) -> tuple[Array, Array]:
    return inputs[0].reshape(-1, work.number("classes")), np.asarray(work.target).reshape(-1)


def _mse(work: Work, inputs: Sequence[Array]) -> Array:
    return losses.mse_loss(inputs[0], work.target.reshape(inputs[0].shape))


def _mse_backward(work: Work, dy: Array, y: Array, inputs: Sequence[Array]) -> Any:
    return [losses.mse_loss_backward(inputs[0], work.target.reshape(inputs[0].shape), work.loss_scale)], None


OPERATORS: dict[str, Operator] = {
    **{name: _elementwise(name) for name in unary.UNARY},
    "relu": _masked(unary.relu),
    "relu6": _masked(unary.relu6),
    "add": Operator(_add, _refuse_backward),
    "mul": Operator(lambda work, inputs: tensors.mul(inputs[0], inputs[1].reshape(inputs[0].shape)), _mul_backward),
    "scale": Operator(lambda work, inputs: tensors.scale(inputs[0], work.number("factor")), _scale_backward),
    "batch_norm": Operator(_batch_norm, _batch_norm_backward),
    "group_norm": Operator(_group_norm, _group_norm_backward),
    "layer_norm": Operator(_layer_norm, _layer_norm_backward),
    "rms_norm": Operator(_rms_norm, _rms_norm_backward),
    "softmax": Operator(_softmax, _softmax_backward),
    "max_pool": Operator(_max_pool, _max_pool_backward, keeps=True),
    "avg_pool": Operator(_avg_pool, _avg_pool_backward),
    "sum": _reduce(tensors.reduce_sum, tensors.reduce_sum_backward),
    "mean": _reduce(tensors.reduce_mean, tensors.reduce_mean_backward),
    "embedding": Operator(_embedding, _embedding_backward),
    "cross_entropy": Operator(_cross_entropy, _cross_entropy_backward),
    "mse_loss": Operator(_mse, _mse_backward),
}
"""By the names of docs/formats.md."""
