"""Audio tokenizers of the field behind the interface of ``tokenizer/base.py``, written anew from papers and files.

Reading order: ``codec.py`` (what all of them share: checks, rates, batches, long clips, files), then the kind that is
meant. ``tokenizer/kinds.py`` says which there are; ``tokenizer/layers/`` and ``tokenizer/quantizer/`` hold the parts
that several are made of.
"""
