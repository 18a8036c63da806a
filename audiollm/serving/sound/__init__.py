"""Sound on its way through the server: what requests bring, and what responses carry.

Reading order: ``uploads`` (recordings of strangers, within limits) → ``streams`` (a decoder's samples at the rate and
the speed of the response) → ``formats`` (samples to bytes of mp3, opus, aac, flac, wav or pcm, as they come).
``pyav`` imports PyAV where something needs it. An object serves one request or response and is not shared.
"""

from __future__ import annotations

from .formats import FORMATS, SoundEncoder, SoundFormat, encode_whole, sound_format
from .pyav import PyAVMissingError
from .streams import RESPONSE_RATE, SoundStream, SpeedChanger
from .uploads import (
    LargeUploadError,
    Recording,
    UnreadableUploadError,
    UploadBuffer,
    UploadError,
    UploadLimits,
    decode_base64,
    read_upload,
)

__all__ = [
    "FORMATS",
    "RESPONSE_RATE",
    "LargeUploadError",
    "PyAVMissingError",
    "Recording",
    "SoundEncoder",
    "SoundFormat",
    "SoundStream",
    "SpeedChanger",
    "UnreadableUploadError",
    "UploadBuffer",
    "UploadError",
    "UploadLimits",
    "decode_base64",
    "encode_whole",
    "read_upload",
    "sound_format",
]
