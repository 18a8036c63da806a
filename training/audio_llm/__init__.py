"""Supervised fine-tuning of an Audio-LLM, the parts of ``training/sft.py``.

Read ``config``, ``records`` (conversations to token ids), ``guards`` (what is odd about them), ``training_data`` and
``mixture_data`` (what updates are made of), ``passes`` (what is computed together), ``packed_attention``, ``objective``
(the loss), ``model`` (LoRA, saving), ``evaluation``, ``listening`` (to answers in sound).
``small_llm`` makes LLMs from nothing, for recipes.

Public names are imported on first use (PEP 562): whoever needs the loss does not wait for the settings.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"config": ["LoRASettings", "SFTConfig"]})
