"""Multiple-choice questions put to a model: prompts, batches, logs and files of its replies.

Reading order: ``prompts`` (how a question is put) → ``asking`` (batches, attempts, errors) → ``prediction_log``
(replies kept) → ``predicting`` (a whole run on any number of processes).
"""
