"""Audio tokenizers compared: tokenizers × recordings × measures, as one resumable run and one table.

Reading order: ``study`` (the file that says what is compared) → ``recordings`` and ``entries`` (the two sides of the
table; ``floors`` are tokenizers without weights) → ``measures`` and ``race`` (what is measured) → ``cells`` and
``running`` (each figure once, in a file of its own) → ``table`` and ``published`` (ours, and what others say) →
``page`` and ``plots`` (Markdown, HTML and JSON). An LLM on each tokenizer is trained by
``audiollm.training.recipes.comparison``.
"""
