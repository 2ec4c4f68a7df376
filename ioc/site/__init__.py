"""What other services load: databases, access files, screens."""
