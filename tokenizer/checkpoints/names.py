"""Tensor names of the checkpoint layouts.

The released names are flat (``conv1.weight``, ``residual_gate.0.weight``, ``ema_count``); ours follow the modules
(``encoder.conv1.weight``, ``sae.gate.0.weight``, ``codebook.ema_count``). A training checkpoint puts ``model.encoder.``
in front of the released names and holds a text decoder beside them.
"""

from __future__ import annotations

import re

from audiollm.tokenizer.configuration import UniAudioTokenizerConfig

TRAINING_PREFIX = "model.encoder."
TEXT_DECODER_PREFIXES = ("model.decoder.", "proj_out.")
# Released name → ours, by prefix; the first match counts.
NAME_TABLE = (
    ("codebook.weight", "codebook.weight"),
    ("codebook.metric", "codebook.metric"),  # ours alone, where a codebook has one
    ("ema_count", "codebook.ema_count"),
    ("ema_weight", "codebook.ema_weight"),
    ("codebook_used", "codebook.recent_codes"),
    ("quantizer.", "codebook."),  # StableToken's, which has no table of entries
    ("embed_positions2.", "code_positions."),
    ("residual_adapter.", "sae.adapter."),
    ("residual_gate.", "sae.gate."),
    ("residual_output_norm.", "sae.norm."),
    ("conv1.", "encoder.conv1."),
    ("conv2.", "encoder.conv2."),
    ("embed_positions.", "encoder.embed_positions."),
    ("layers.", "encoder.layers."),
    ("layer_norm.", "encoder.layer_norm."),
)


def our_name(name: str) -> str | None:
    """Translates a released or training name; ours and unknown ones stay as they are, the text decoder's give None."""
    if name.startswith(TEXT_DECODER_PREFIXES):
        return None
    released = name.removeprefix(TRAINING_PREFIX)
    for theirs, ours in NAME_TABLE:
        if released.startswith(theirs):
            return ours + released[len(theirs) :]
    return name


def released_name(name: str) -> str | None:
    """Translates one of our names; None for what the released layout has no place for."""
    if name == "codebook.num_updates":
        return None
    for theirs, ours in NAME_TABLE:
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    raise AssertionError(f"{name} is missing from NAME_TABLE")


def is_left_out(name: str, config: UniAudioTokenizerConfig) -> bool:
    """Whether a tensor belongs to a part that this configuration does without."""
    if name.startswith("codebook.ema_"):
        return config.quantize_ema_decay is None
    if not config.quantize_encoder_only:
        return False
    layer = re.match(r"encoder\.layers\.(\d+)\.", name)
    if layer:
        return config.quantize_position <= int(layer[1]) < config.encoder_layers
    return name.startswith("encoder.layer_norm.") and not config.has_final_norm
