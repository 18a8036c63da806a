"""The published models without any care for speed: what ours are timed against."""
