"""Messages of a request as the model's own: recordings read within the limits, former answers found by their ids."""

from __future__ import annotations

from collections.abc import Sequence

from audiollm.data.conversation.types import AudioPart, Message, TextPart
from audiollm.serving.sound.uploads import LargeUploadError, Recording, decode_base64, read_upload

from .chat_types import AudioContent, ChatMessage
from .errors import ApiError, refused
from .state import ServerState


async def read_messages(state: ServerState, messages: Sequence[ChatMessage], key: str) -> list[Message]:
    """The messages of a chat.

    Args:
        state: has the limits, and the answers that were kept.
        messages: of the request.
        key: the API key of the request, whose former answers it may call.

    Raises:
        ApiError: something in them cannot be used; its field is named.
        UploadError: likewise a recording.
        BusyError: all places are taken; no recording is decoded then.
    """
    state.answerer.admission.check_free()
    room = _Room(state.settings.uploads.max_decoded_bytes)
    return [await _message(state, message, f"messages[{number}]", room, key) for number, message in enumerate(messages)]


class _Room:
    """What all recordings of a request may take of memory: a few bytes of silence are megabytes of samples."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._num_left = max_bytes

    def take(self, recording: Recording, where: str) -> None:
        """Raises LargeUploadError where a recording finds no room beside those before it."""
        self._num_left -= recording.waveform.nbytes
        if self._num_left < 0:
            reason = f"with the recordings before it, it is larger than {self._max_bytes} bytes once decoded, which is"
            raise LargeUploadError(where, f"{reason} the limit for all of a request here")


async def _message(state: ServerState, message: ChatMessage, where: str, room: _Room, key: str) -> Message:
    content: list[TextPart | AudioPart] = []
    if isinstance(message.content, str):
        content.append(TextPart(message.content))
    for index, part in enumerate(message.content if isinstance(message.content, list) else ()):
        if isinstance(part, AudioContent):
            content.append(await _recording(state, part, f"{where}.content[{index}].input_audio.data", room))
        else:
            content.append(TextPart(part.text))
    if message.audio is not None:
        content += _former(state, message, f"{where}.audio.id", key)
    role = "system" if message.role == "developer" else message.role
    if not content and not message.tool_calls and role not in ("system", "tool"):
        raise refused(f"{where}.content", "is empty: give a text or parts")
    return Message(role, content, message.name, message.tool_calls, message.tool_call_id)


async def _recording(state: ServerState, part: AudioContent, where: str, room: _Room) -> AudioPart:
    if not state.answerer.model.can_listen:
        raise refused(where, "this model has no audio tokenizer, so it takes no recordings")
    limits = state.settings.uploads
    recording = await state.read(
        lambda: read_upload(decode_base64(part.input_audio.data, limits, where), limits, where)
    )
    room.take(recording, where)
    return AudioPart(array=recording.waveform.numpy(), sampling_rate=recording.sample_rate, where=where)


def _former(state: ServerState, message: ChatMessage, where: str, key: str) -> list[TextPart | AudioPart]:
    """What the assistant said before, by its id."""
    assert message.audio is not None
    if message.role != "assistant":
        raise refused(where, "only an answer of the assistant is called by its id")
    kept = state.kept.get(message.audio.id, key)
    if kept is None:
        raise ApiError(
            400,
            f"{where}: no answer {message.audio.id!r} is kept here, or no longer: send its text instead",
            param=where,
            code="audio_not_found",
        )
    text: list[TextPart | AudioPart] = [TextPart(kept.text)] if kept.text and message.content is None else []
    return [*text, AudioPart(codes=list(kept.codes), where=where)] if kept.codes else text
