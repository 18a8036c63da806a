"""A trained Audio-LLM behind an HTTP server that speaks OpenAI's language."""
