"""Tokenizing of corpora: recordings to codes, resumable after any interruption.

Reading order: ``source`` (which recordings) → ``corpus`` (the run) → ``encoding`` (decoded ahead, encoded in batches) →
``report``. Names are imported on first use, the tokenizer with them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "corpus": ["tokenize_corpus"],
        "report": ["CorpusReport"],
        "source": ["AudioFiles", "open_corpus"],
    },
)
