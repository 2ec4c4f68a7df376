"""The Channel Access face of the DAQ, and the program: PVs, their server, and the command line."""
