"""Result files side by side: the leaderboard page, and the comparison of two sets of results.

Reading order: ``result_files`` (found and told apart) → ``rows`` with ``question_rows``, ``speech_rows``,
``other_rows`` → ``published`` (figures of papers) → ``traces`` (predictions behind a figure) → ``board`` → ``page``;
``comparison/``.
"""
