"""A detector made of programs, and the faults on its way."""
