"""Questions put to a model.

Reading order: ``prompts`` (how a question is put) → ``asking`` (batches, attempts, errors) → ``prediction_log``
(replies kept) → ``predicting`` (a whole run on any number of processes).
"""
