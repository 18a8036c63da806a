"""Training of the vocoder, mel to waveform.

Read ``segments`` (what an update hears), ``losses`` and ``discriminators``, ``trainer``, ``evaluation``.
"""
