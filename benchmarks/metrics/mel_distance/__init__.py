"""Distance of log-mel spectrograms, as a local ``evaluate`` module."""
