"""Where networks come from: it stops at a trace."""
