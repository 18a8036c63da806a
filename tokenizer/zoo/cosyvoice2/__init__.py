"""CosyVoice2's speech tokenizer: 25 codes of 6,561 per second, out of an encoder that is a relative of Whisper's.

Reading order: ``encoder.py`` (the network), ``windows.py`` (long clips), ``model.py`` (waveforms to codes),
``graph.py`` (weights out of the released ONNX file).
"""
