"""Sources of recordings: each module knows the packages of one corpus, or two, and what their files mean."""
