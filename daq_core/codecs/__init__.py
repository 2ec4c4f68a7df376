"""How images become compressed chunks."""
