"""The protocol: searches, circuits, channels, puts."""
