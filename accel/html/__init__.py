"""Self-contained HTML pages: `step` explains a training step, `sweep` shows the machines of a sweep."""
