"""Tokenizing of corpora: recordings to codes, resumable after any interruption.

Reading order: ``source`` (which recordings; ``tar_shards``, ``other_manifests``) → ``corpus`` (a run into one file) →
``encoding`` (decoded by ``read_ahead``, encoded in batches) → ``report``; then ``jobs``: a folder of shards, by any
number of processes. Names are imported on first use, the tokenizer with them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "corpus": ["tokenize_corpus"],
        "jobs.job": ["JobReport", "tokenize_into_folder"],
        "report": ["CorpusReport"],
        "source": ["AudioFiles", "open_corpus"],
    },
)
