"""Data: audio files, conversation records, batches, corpora turned into codes, and descriptions of what is heard.

Reading order: ``manifest`` (records from wherever they lie) → ``audio/`` (any file to a waveform) → ``conversation/``
(the training record) → ``foreign/`` and ``conversion/`` (those of other projects, and how they become ours) →
``tokenizing/`` (recordings to codes) → ``packing``, ``collation`` (examples to a batch).

Descriptions of clips: ``sap/`` (the record) → ``labelling/`` (from known labels, or from models that listen) →
``sap/question_records`` (what can be asked of them). Speech in a voice: ``voices/``. Recordings to start with:
``corpora/``; models to start from: ``pretrained/``; both come in packages (``packages``). Models that label and judge:
``chat/``. Ground for all: ``files/``, ``records``, ``prompts``, ``sampling``, ``plugins``, ``resumable_output``.
"""
