"""Spoken audio under test: synthesized, reconstructed, recognized, compared with voices and predicted opinions.

Reading order: ``seed_tts_meta`` (what is to be said) → ``synthesis`` (recordings) → ``judges/`` (what is said of them)
→ ``words`` (word error rates) → ``table``; ``spoken_records`` are recordings to transcribe or to rebuild, and
``kept`` and ``reconstruction_report`` say what the latter keep. Public names are imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "reconstruction_report": ["ReconstructionReport", "report_reconstruction"],
    },
)
