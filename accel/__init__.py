"""Training accelerators with N:M sparsity: simulate, schedule, explain."""
