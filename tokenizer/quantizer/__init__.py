"""The quantizer: each frame becomes the number of its nearest codebook entry.

Reading order: ``codebook.py`` (search and training), ``deferred.py`` (one update out of many passes), ``kmeans.py``
(a start on real features).
"""
