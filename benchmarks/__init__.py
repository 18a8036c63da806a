"""Benchmarks of Audio-LLMs and audio tokenizers. The files at the top are programs, which ``audiollm bench`` runs too.

Reading order: ``harness`` (what programs share) → ``models`` (models under test) → ``questions`` (MMAU, MMAR, MMSU)
with ``judge`` (chat models as judges) → ``speech`` (what is spoken or reconstructed) → ``codes`` (what a tokenizer's
codes hold) → ``sap`` (predicted SAP records) → ``leaderboard`` (results side by side) → ``comparison`` (studies of
audio tokenizers). ``metrics`` are local ``evaluate`` modules; ``speed`` holds what the speed comparisons compare with.
"""
