"""The right answer for every unit: pure NumPy, bit exact, slow and obvious."""
