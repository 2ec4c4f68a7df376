"""What a DAQ shows, and what it keeps of its runs: the status, snapshots, the journal."""
