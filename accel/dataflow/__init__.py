"""From a trace to GEMMs, mappings and a schedule: what happens in which order."""
