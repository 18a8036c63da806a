"""How fast a model is trained: ``sft`` times updates of a fine-tuning, as a section of ``training/gpu_check.py``."""
