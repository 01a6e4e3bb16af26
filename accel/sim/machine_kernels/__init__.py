"""The compiled event loop of `accel.sim.machine`."""
