"""What clients send, checked; and the form of what they are sent."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError
from pydantic_core import from_json

from ..chat_types import Strict
from ..errors import ApiError
from .configuration import AnswerPatch, SessionPatch

MAX_ID_CHARACTERS = 128
Identifier = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS)]


class Event(Strict):
    """What every event may have."""

    event_id: Identifier | None = None


class UpdateSession(Event):
    """Settles things of the session."""

    type: Literal["session.update"]
    session: SessionPatch


class AppendAudio(Event):
    """Sound, in base64."""

    type: Literal["input_audio_buffer.append"]
    audio: str


class CommitAudio(Event):
    """The turn ends here."""

    type: Literal["input_audio_buffer.commit"]


class ClearAudio(Event):
    """Forgets what was not committed."""

    type: Literal["input_audio_buffer.clear"]


class ClearOutput(Event):
    """Sends no more of the sound of the response."""

    type: Literal["output_audio_buffer.clear"]


class ContentBody(Strict):
    """A part of a message; `audiollm.serving.api.realtime.items` says which fields go with which type."""

    type: Literal["input_text", "input_audio", "output_text"]
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None


class ItemBody(Strict):
    """A message that the client adds."""

    type: Literal["message"]
    role: Literal["user", "assistant", "system"]
    content: Annotated[list[ContentBody], Field(min_length=1, max_length=64)]
    id: Identifier | None = None
    object: Literal["realtime.item"] | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None


class ItemReference(Strict):
    """A message of the conversation."""

    type: Literal["item_reference"]
    id: Identifier


class CreateItem(Event):
    """Adds a message."""

    type: Literal["conversation.item.create"]
    item: ItemBody
    previous_item_id: Identifier | None = None


class DeleteItem(Event):
    """Takes one away."""

    type: Literal["conversation.item.delete"]
    item_id: Identifier


class RetrieveItem(Event):
    """Asks for one."""

    type: Literal["conversation.item.retrieve"]
    item_id: Identifier


class TruncateItem(Event):
    """Says how much of an answer was heard."""

    type: Literal["conversation.item.truncate"]
    item_id: Identifier
    content_index: Literal[0]
    audio_end_ms: Annotated[int, Field(ge=0)]


class ResponsePatch(AnswerPatch):
    """How one response differs from the session."""

    conversation: Literal["auto", "none"] | None = None
    input: (
        Annotated[
            list[Annotated[ItemBody | ItemReference, Field(discriminator="type")]],
            Field(max_length=256),
        ]
        | None
    ) = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None


class CreateResponse(Event):
    """Asks for an answer."""

    type: Literal["response.create"]
    response: ResponsePatch | None = None


class CancelResponse(Event):
    """Ends the answer where it is."""

    type: Literal["response.cancel"]
    response_id: Identifier | None = None


ClientEvent = (
    UpdateSession
    | AppendAudio
    | CommitAudio
    | ClearAudio
    | ClearOutput
    | CreateItem
    | DeleteItem
    | RetrieveItem
    | TruncateItem
    | CreateResponse
    | CancelResponse
)
_KINDS: Mapping[str, type[ClientEvent]] = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(ClientEvent)
}
# pydantic writes the member of a union into the place of an error ("constrained-int"), where clients have no field.
_MEMBERS = frozenset({"str", "VoiceId", "message", "item_reference"})
_MOST_SHOWN = 200  # characters of a name that a client made up


def parsed(text: str) -> dict[str, Any]:
    """The JSON object of an event.

    Raises:
        ApiError: it is none.
    """
    try:
        # Not json's: that one lets halves of characters through, of which no text can be made.
        data = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, "the event is no JSON", code="invalid_json") from error
    if not isinstance(data, dict):
        raise ApiError(400, "the event is no JSON object: send one with a type", code="invalid_json")
    return data


def event_id_of(data: Mapping[str, Any]) -> str | None:
    """What the client calls an event, whatever else is wrong with it."""
    given = data.get("event_id")
    return given if isinstance(given, str) and len(given) <= MAX_ID_CHARACTERS else None


def checked(data: Mapping[str, Any]) -> ClientEvent:
    """The event.

    Raises:
        ApiError: there is no such event, or something in it is wrong; its field is named.
    """
    name = data.get("type")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        shown = repr(name[:64]) if isinstance(name, str) else "no text"
        message = f"type: {shown} is no event of clients here: use one of {', '.join(_KINDS)}"
        raise ApiError(400, message, param="type", code="unknown_event" if name is not None else "missing_type")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _of_validation(error) from error


def _of_validation(error: ValidationError) -> ApiError:
    first = error.errors(include_input=False, include_url=False)[0]
    is_unknown = first["type"] == "extra_forbidden"
    *before, last = first["loc"]
    places = [place for place in before if _is_of_client(place)]
    places += [last] if is_unknown or _is_of_client(last) else []
    param = "".join(f"[{place}]" if isinstance(place, int) else f".{place}" for place in places)
    param = param.removeprefix(".")[:_MOST_SHOWN]
    if is_unknown:
        return ApiError(400, f"{param}: is not supported here: leave it out", param=param, code="unknown_parameter")
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return ApiError(400, f"{param}: {first['msg']}", param=param, code=code)


def _is_of_client(place: int | str) -> bool:
    return isinstance(place, int) or (place.isidentifier() and place not in _MEMBERS)


def new_id(kind: str) -> str:
    """A name that nothing else has."""
    return f"{kind}_{uuid.uuid4().hex[:24]}"


def error_event(error: ApiError, event_id: str | None) -> dict[str, Any]:
    """``error``: the session goes on.

    Args:
        error: what is wrong.
        event_id: of the event that it is about; None where no event is to blame.
    """
    told = {**error.body["error"], "event_id": event_id}
    if "Retry-After" in error.headers:
        told["retry_after_seconds"] = int(error.headers["Retry-After"])
    return {"type": "error", "error": told}
