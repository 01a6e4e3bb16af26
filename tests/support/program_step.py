"""One training step of a network through its program: lowered, scheduled, compiled, executed on numbers."""

from accel.api import lower, schedule, step_options
from accel.dataflow.codegen import compile_schedule
from accel.golden.interpreter import interpret
from accel.golden.interpreter_update import initial_tensors
from accel.golden.update import UpdateRule

RULE = UpdateRule(lr=0.05, momentum=0.9, decay=1e-3)


def program_for(trace, method, pattern, arch, batch, dense_layers=None, pregenerate=True):
    """Return the compiled step."""
    options = step_options(arch, method, pattern, batch, dense_layers, "sgd", pregenerate)
    return compile_schedule(schedule(lower(trace, options), arch))


def program_step(trace, weights, data, method, pattern, arch, seed=None, **options):
    """Return the parameters after one step, by the names of `weights`: "conv1", "conv1 bias", "norm1".

    `weights` are FP32, stored (out, taps..., in); `data` are the inputs of a network with one input (FP16, channels last) and
    the labels of its loss, the last layer. `seed` chooses the order of instructions. `options`: see `step_tensors`.
    """
    tensors = step_tensors(trace, weights, data, method, pattern, arch, seed, **options)
    return {name: tensors[f"master {name}"].reshape(value.shape) for name, value in weights.items()}


def step_tensors(
    trace, weights, data, method, pattern, arch, seed=None, rule=RULE, loss_scale=1.0, dense_layers=None, pregenerate=True
):
    """Return every tensor of the step."""
    program = program_for(trace, method, pattern, arch, len(data[0]), dense_layers, pregenerate)
    tensors = given(program, trace, weights, data)
    return interpret(program, tensors, rule=rule, loss_scale=loss_scale, seed=seed)


def given(program, trace, weights, data):
    """Return what a step starts from."""
    inputs, labels = data
    return initial_tensors(program, weights) | {trace.inputs[0]: inputs, f"{trace.layers[-1].name} target": labels}
