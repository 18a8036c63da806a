"""Supervised fine-tuning of an Audio-LLM, the parts of ``training/sft.py``.

Read ``config``, ``records`` (conversations to token ids), ``guards`` (what is odd about them), ``training_data`` and
``mixture_data`` (what updates are made of), ``passes`` (what is computed together), ``packed_attention``, ``objective``
(the loss), ``model`` (LoRA, saving), ``evaluation``, ``listening`` (to answers in sound).
``small_llm`` makes LLMs from nothing, for recipes.
"""

from .config import LoRASettings, SFTConfig

__all__ = ["LoRASettings", "SFTConfig"]
