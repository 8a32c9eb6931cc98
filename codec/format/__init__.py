"""The file: container and symbol streams. Knows no network."""
