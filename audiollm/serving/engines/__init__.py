"""What computes tokens: ids in, ids out, streamed, cancellable.

Reading order: ``base`` (the interface) → ``rules`` (which token follows) → ``plain`` (one at a time, the reference) →
``batching`` (many at once) on ``continuous`` (transformers' part of it) → ``queues`` (from their threads to whoever
asked).
"""
