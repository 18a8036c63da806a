"""The quantizers: each frame becomes the number of its nearest codebook entry.

Reading order: ``codebook.py`` (search and training), ``usage.py`` (which codes are in use), ``deferred.py`` (one update
out of many passes), ``kmeans.py`` (a start on real features). Without a table of entries: ``lfq.py`` (signs, by a vote)
and ``fsq.py`` (a grid of levels).
"""
