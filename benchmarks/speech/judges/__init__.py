"""Who judges recordings: ``recognizers`` (words), ``mos`` with ``dnsmos`` (predicted opinion), ``attributes`` (whose
voice it is); ``judging`` asks the first two and a speaker encoder, and keeps what they say.
"""
