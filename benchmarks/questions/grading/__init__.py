"""Grading of replies to multiple-choice questions, and scores of whole files of them.

Reading order: ``pairing`` (replies and their questions) → ``answer_extraction``, ``letter_reading``, ``token_matching``
(what a reply says) → ``token_benchmark`` (the rule of MMAU and MMAR) → ``scoring`` with ``bootstrap`` → ``judging`` (a
chat model's opinion beside it).
"""
