"""Data: audio files, conversation records, batches, and corpora turned into codes.

Reading order: ``audio`` (any file to a waveform) → ``conversation_record`` (the training record) →
``conversation_parsing`` (its checks) → ``conversation`` (files and data sets of records) → ``corpus`` (recordings to
codes) → ``collation`` (examples to a batch). ``manifest`` opens the files that records lie in.

Descriptions of clips: ``sap`` (the record) → ``sap_rules`` (from labels) → ``labelling`` (from models that listen)
→ ``sap_questions`` and ``sap_conversations`` (what can be asked of them).
"""
