"""Chat models as judges. Reading order: ``asking`` (votes, majorities) → ``log`` (verdicts kept); ``prompts/``."""
