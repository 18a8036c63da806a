"""Preference training of an Audio-LLM through trl: what ``training/preference.py`` is made of.

Reading order: ``config`` → ``records`` (records to prompts and pairs, as ids) → ``rewards/`` (what an answer is worth)
→ ``methods`` (trl's trainers on these ids) → ``reporting`` (what trl logs, as lines of metrics), ``checkpoints`` →
``running`` (a run around them).
"""
