"""What the speed comparisons are made of: ``timing``, ``flops``, and in ``plain/`` the paths to compare with.

``decoder_quality`` is the other side: what fewer evaluations of the decoder cost in sound.
"""
