"""Voices: their attributes, instructions that ask for one, speaker vectors, and speech as training data.

Reading order: ``attributes`` (closed sets and free words) → ``levels`` (slow or fast, low or high, by comparison) →
``clips`` (speech with a transcript) → ``instructions`` (a voice in words) → ``speech_records`` (conversations).
``encoders`` turn recordings into speaker vectors, ``resemblyzer`` is the one that ships. Names are imported on first
use: attributes cost no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "attributes": ["VocalAttributes"],
        "encoders": [
            "SpeakerEncoder",
            "available_speaker_encoders",
            "embed_recording",
            "load_speaker_encoder",
            "register_speaker_encoder",
        ],
        "instructions": ["describe_voice", "speech_request"],
        "speech_records": ["SpeechTaskReport", "SpeechTaskSettings", "write_speech_records"],
    },
)
