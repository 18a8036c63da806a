"""Supervised fine-tuning of an Audio-LLM, the parts of ``training/sft.py``.

Read ``config``, ``records`` (conversations to token ids), ``guards`` (what is odd about them), ``passes`` (what is
computed together), ``packed_attention``, ``objective`` (the loss), ``model`` (LoRA, saving), ``evaluation``.
``small_llm`` makes LLMs from nothing, for recipes.
"""

from .config import LoRASettings, SFTConfig

__all__ = ["LoRASettings", "SFTConfig"]
