"""What a put does."""
