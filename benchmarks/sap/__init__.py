"""Predicted Semantic-Acoustic Primitives against true ones.

Reading order: ``scoring`` (what can be counted) → ``judging`` (free texts, by a chat model) → ``report`` (a whole test
set); ``audit`` puts labels before people.
"""
