"""The formats of other projects that are read, by name."""

from __future__ import annotations

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

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format(
            name="messages",
            title="chat messages",
            is_chat=True,
            matches=is_messages,
            read=read_messages,
            opens=never,
            entries=entries_of,
        ),
        Format(
            name="sharegpt",
            title="ShareGPT",
            is_chat=True,
            matches=is_sharegpt,
            read=read_sharegpt,
            opens=never,
            entries=entries_of,
        ),
        Format(
            name="query-response",
            title="query and response",
            is_chat=True,
            matches=is_query_response,
            read=read_query_response,
            opens=never,
            entries=entries_of,
        ),
        Format(
            name="prompt-completion",
            title="prompt and completion",
            is_chat=True,
            matches=is_prompt_completion,
            read=read_prompt_completion,
            opens=never,
            entries=entries_of,
        ),
        Format(
            name="alpaca",
            title="Alpaca",
            is_chat=True,
            matches=is_alpaca,
            read=read_alpaca,
            opens=never,
            entries=entries_of,
        ),
        Format(
            name="nemo",
            title="a NeMo manifest",
            is_chat=False,
            matches=is_nemo,
            read=read_nemo,
            opens=never,
            entries=entries_of,
        ),
        Format(
            name="lhotse",
            title="a lhotse manifest",
            is_chat=False,
            matches=is_lhotse,
            read=read_lhotse,
            opens=is_lhotse_folder,
            entries=lhotse_entries,
        ),
        Format(
            name="kaldi",
            title="a Kaldi data folder",
            is_chat=False,
            matches=is_kaldi,
            read=read_kaldi,
            opens=is_kaldi_folder,
            entries=kaldi_entries,
            is_of_files=True,
        ),
        Format(
            name="wenet",
            title="WeNet data",
            is_chat=False,
            matches=is_wenet,
            read=read_wenet,
            opens=is_wenet_shards,
            entries=wenet_entries,
        ),
        Format(
            name="audiofolder",
            title="an audiofolder",
            is_chat=False,
            matches=is_file_name_row,
            read=read_file_name_row,
            opens=is_audiofolder,
            entries=audiofolder_entries,
        ),
        Format(
            name="common-voice",
            title="a Common Voice table",
            is_chat=False,
            matches=is_common_voice,
            read=read_common_voice,
            opens=never,
            entries=common_voice_entries,
        ),
        Format(
            name=CLIPS,
            title="clips",
            is_chat=False,
            matches=is_clip,
            read=read_clip,
            opens=never,
            entries=entries_of,
        ),
    )
}
