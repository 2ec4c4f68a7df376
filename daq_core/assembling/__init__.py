"""How packets become images in the ring."""
