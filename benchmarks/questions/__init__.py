"""Multiple-choice questions about audio: read, asked, and scored by the published rules."""
