"""How long a schedule takes and what it moves."""
