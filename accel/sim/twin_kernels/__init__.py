"""The compiled clock cycle of `accel.sim.twin`: vectors, edges, and what a column of PEs does in either dataflow."""
