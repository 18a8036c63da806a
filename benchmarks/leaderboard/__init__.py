"""Result files side by side: the leaderboard page, and the comparison of two sets of results."""
