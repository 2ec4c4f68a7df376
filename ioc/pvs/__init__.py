"""Every PV: its name, what it shows, its alarm."""
