"""Files of multipart requests: read piece by piece, decoded on a thread, within the limits."""

from __future__ import annotations

from starlette.datastructures import UploadFile

from audiollm.serving.api.state import ServerState
from audiollm.serving.sound.uploads import Recording, UploadBuffer

_PIECE_BYTES = 1 << 20


async def read_file(state: ServerState, file: UploadFile, name: str) -> Recording:
    """The recording of an uploaded file; errors as for `read_upload`, and a BusyError where all places are taken.

    Args:
        state: has the limits.
        file: the upload.
        name: of its field.
    """
    state.answerer.admission.check_free()
    buffer = UploadBuffer(state.settings.uploads, name)
    while piece := await file.read(_PIECE_BYTES):
        buffer.add(piece)
    return await state.read(lambda: buffer.read(state.answerer.model.processor.mono))
