"""The image ring: shared memory of pixels, slots and words."""
