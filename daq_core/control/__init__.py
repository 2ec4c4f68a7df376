"""The one door, and what is behind it: runs, configs, folders."""
