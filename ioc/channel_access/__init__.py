"""The protocol: searches, circuits, channels, records."""
