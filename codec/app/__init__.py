"""What only the command needs."""
