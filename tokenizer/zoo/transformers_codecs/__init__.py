"""Codecs that transformers has: its models compute; here they get the interface of every audio tokenizer.

Reading order: ``wrapper.py`` (what all share: files, options, precision), then a codec.
"""
