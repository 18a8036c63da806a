"""Layers that several tokenizers are made of."""
