"""The closed forms of docs/timing.md: the one place that knows how many cycles an event takes."""
