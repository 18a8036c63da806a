"""What an Audio-LLM is put together from: ``places`` (which folder is what), ``adapters`` (merged into an LLM)."""
