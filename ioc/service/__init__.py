"""The service: its start, its state on disk, its end."""
