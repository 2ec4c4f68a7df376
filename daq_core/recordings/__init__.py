"""Packets kept in files: recorded, looked at, sent again."""
