"""Training of a multi-stream LM (UniAudio 2.0): what ``training/train_uniaudio.py`` is made of.

Reading order: ``config`` → ``stages`` (what each of the four trains, and their order) → ``model`` (where a run starts,
what it leaves) → ``passes`` (records as rows) → ``objective`` (rows to losses) → ``evaluation``. Records, mixtures and
packing are those of ``training/audio_llm``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"config": ["TextLoRASettings", "UniAudioSizes", "UniAudioTrainingConfig"]}
)
