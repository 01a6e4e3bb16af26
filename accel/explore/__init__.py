"""Design-space exploration: the space file, one point of it, the folder of results, sweeps and Pareto fronts."""
