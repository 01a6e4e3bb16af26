"""Every operator of the vector unit, forward and backward, bit for bit: docs/numerics.md is the contract.

Arrays are channels last, (batch, pixels..., channels). Tensors are FP16 unless a docstring says FP32.
"""
