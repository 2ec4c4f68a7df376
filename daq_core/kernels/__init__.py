"""How kernels are compiled, and the copies they are made of."""
