"""How work gets into a process of its own, and what the two say to each other."""
