"""What a fine-tuning takes: ``estimate`` tells the memory before it is started; ``sft`` times updates, as a section of
``training/gpu_check.py``.
"""
