"""What computes tokens: ids in, ids out, streamed, cancellable. ``base.py`` is the interface."""
