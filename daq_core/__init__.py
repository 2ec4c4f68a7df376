"""The DAQ itself: packets in, assembled images in shared memory, HDF5 files out.

Nothing in this package knows of Channel Access, HTTP or Redis; those are faces
that call the one door, :class:`daq_core.control.daq.Daq`, and render its snapshots.
"""
