"""The processor: chat messages with audio to token ids of an extended LLM, and token ids back to text, codes and sound.

Reading order: ``processor`` (messages to ids and back, saving) → ``attached`` (its audio tokenizer: loaded when it is
needed, recordings to codes, codes to sound) → ``batches`` (encoded conversations to padded tensors); ``audio_rate``
(what a second of audio costs). What lies on the
way from messages to ids is in ``audiollm/chat``.
"""

from .processor import AudioLLMProcessor

__all__ = ["AudioLLMProcessor"]
