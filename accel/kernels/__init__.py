"""The matrix product at the speed of the host, with the bits of `accel.golden`."""
