"""Codes to sound: a flow model makes a mel spectrogram of the codes, a vocoder a waveform of the mel.

Reading order: ``model.py`` (`WaveformDecoder`), ``inputs.py`` (what it takes), ``batching.py`` (rows of any
number and length), ``flow/`` (codes to mel), ``vocoder/`` (mel to waveform); then ``streaming/`` (codes as they come),
``checkpoints/`` (where the weights come from), ``attached.py`` (the decoder beside a tokenizer) and ``attachable.py``
(tokenizers that can have one).

Public names are imported on first use (PEP 562): whoever needs the sizes does not wait for the models.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "configuration": ["WaveformDecoderConfig"],
        "inputs": ["VoicePrompt"],
        "model": ["WaveformDecoder", "convert_decoder"],
        "streaming.decoder": ["StreamingDecoder"],
    },
)
