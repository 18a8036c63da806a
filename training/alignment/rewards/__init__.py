"""What drawn answers are worth: rewards by name.

``base`` (an answer, a reward) → ``sounds`` (answers made audible, once for all rewards) → ``spoken`` (words and voice
that are heard), ``written`` (right answers, lengths, form) → ``registry`` (by name).
"""
