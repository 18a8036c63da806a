"""The formats of other projects that are read, by name."""

from __future__ import annotations

from typing import Any

from .audiofolder import audiofolder_entries, is_audiofolder
from .base import Format, never
from .clips import (
    common_voice_entries,
    is_clip,
    is_common_voice,
    is_file_name_row,
    is_nemo,
    read_clip,
    read_common_voice,
    read_file_name_row,
    read_nemo,
)
from .exchanges import (
    is_alpaca,
    is_prompt_completion,
    is_query_response,
    read_alpaca,
    read_prompt_completion,
    read_query_response,
)
from .files import entries_of
from .kaldi import is_kaldi, is_kaldi_folder, kaldi_entries, read_kaldi
from .lhotse import is_lhotse, is_lhotse_folder, lhotse_entries, read_lhotse
from .messages import is_messages, read_messages
from .shards import is_wenet, is_wenet_shards, read_wenet, wenet_entries
from .sharegpt import is_sharegpt, read_sharegpt

CLIPS = "clips"
"""The format of least demands: where another one fits too, it is that one."""

_OF_RECORDS: dict[str, Any] = {"opens": never, "entries": entries_of}
_CHAT: dict[str, Any] = {"is_chat": True, **_OF_RECORDS}
_CLIP: dict[str, Any] = {"is_chat": False, **_OF_RECORDS}
_LHOTSE = {"opens": is_lhotse_folder, "entries": lhotse_entries}
_KALDI = {"opens": is_kaldi_folder, "entries": kaldi_entries, "is_of_files": True}
_WENET = {"opens": is_wenet_shards, "entries": wenet_entries}
_AUDIOFOLDER = {
    "opens": is_audiofolder,
    "entries": audiofolder_entries,
    "demand": "call the column of the recordings file_name, and that of what is said in them text",
}
_COMMON_VOICE = {"entries": common_voice_entries}

_ALL = (
    Format("messages", "chat messages", is_messages, read_messages, **_CHAT),
    Format("sharegpt", "ShareGPT", is_sharegpt, read_sharegpt, **_CHAT),
    Format("query-response", "query and response", is_query_response, read_query_response, **_CHAT),
    Format("prompt-completion", "prompt and completion", is_prompt_completion, read_prompt_completion, **_CHAT),
    Format("alpaca", "Alpaca", is_alpaca, read_alpaca, **_CHAT),
    Format("nemo", "a NeMo manifest", is_nemo, read_nemo, **_CLIP),
    Format("lhotse", "a lhotse manifest", is_lhotse, read_lhotse, **_CLIP | _LHOTSE),
    Format("kaldi", "a Kaldi data folder", is_kaldi, read_kaldi, **_CLIP | _KALDI),
    Format("wenet", "WeNet data", is_wenet, read_wenet, **_CLIP | _WENET),
    Format("audiofolder", "an audiofolder", is_file_name_row, read_file_name_row, **_CLIP | _AUDIOFOLDER),
    Format("common-voice", "a Common Voice table", is_common_voice, read_common_voice, **_CLIP | _COMMON_VOICE),
    Format(CLIPS, "clips", is_clip, read_clip, **_CLIP),
)
FORMATS: dict[str, Format] = {one.name: one for one in _ALL}
"""Each by its name, in the order in which messages list them."""
