"""Training of the flow model, codes to mel: ``batches`` (noise and padding), ``trainer``, ``evaluation``."""
