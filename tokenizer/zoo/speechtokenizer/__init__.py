"""SpeechTokenizer (Zhang et al., 2023, arXiv:2308.16692): eight codebooks, the first of which holds the content."""
