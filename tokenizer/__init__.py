"""The audio tokenizer: waveforms to codes, and where the checkpoint can, back.

Reading order: ``base.py`` (what a language model needs of any tokenizer), ``layout.py`` and ``sequence.py`` (several
codebooks as one row), ``modeling.py`` (`UniAudioTokenizer`),
``signal/``, ``encoder/`` and ``quantizer/`` (from waveform to code), ``decoder/`` (from code to waveform),
``checkpoints/`` (where weights come from), ``supervision/`` (how the tokenizer is trained).

Public names are imported on first use (PEP 562): whoever needs a mel spectrogram or the interface does not wait for
the models and transformers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["AudioTokenizer", "CodeGroup", "Codes", "GroupedCodes", "Latents"],
        "configuration": ["UniAudioTokenizerConfig"],
        "decoder.configuration": ["WaveformDecoderConfig"],
        "decoder.inputs": ["VoicePrompt"],
        "decoder.model": ["WaveformDecoder"],
        "layout": ["CodeLayout"],
        "modeling": ["UniAudioTokenizer", "UniAudioTokenizerOutput"],
        "quantizer.codebook": ["Codebook"],
        "quantizer.kmeans": ["CodebookFit"],
        "sequence": ["SequenceTokenizer", "as_one_row"],
        "supervision.model": ["SupervisedOutput", "SupervisedTokenizer"],
        "supervision.opening": ["open_supervised"],
        "supervision.stabletoken": ["SupervisedStableToken"],
        "supervision.text": ["SapText"],
        "supervision.text_decoder": ["SapDecoder"],
    },
)
