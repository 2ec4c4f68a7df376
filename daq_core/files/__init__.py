"""What an HDF5 file of a run is, and where it may be."""
