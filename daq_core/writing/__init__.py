"""How images of the ring become a file: the writer process."""
