"""``/v1/inspector``: what the page shows of recordings and answers, computed here. Keys and limits are those of all."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

import torch
from fastapi import APIRouter, File, Form, Request, UploadFile
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from audiollm.data.conversation.types import Conversation
from audiollm.generation.settings import GenerationSettings
from audiollm.serving.answering.answerer import AnswerRequest
from audiollm.serving.api.audio.uploads import read_file
from audiollm.serving.api.chat_types import ChatMessage, Strict
from audiollm.serving.api.errors import ApiError, refused, request_id_of
from audiollm.serving.api.messages import read_messages
from audiollm.serving.api.middleware import key_of
from audiollm.serving.api.responses import whole_sound
from audiollm.serving.api.state import ServerState, state_of, unless_left
from audiollm.serving.sound.uploads import Recording
from audiollm.tokenizer.base import AudioTokenizer
from audiollm.tokenizer.sequence import as_one_row

from .describing import describe_as_sap
from .hearing import LONGEST_SECONDS, HeardRecording, hear, mel_picture, nearest_codes
from .probabilities import token_chances
from .rebuilding import Rebuilt, rebuild

Result = TypeVar("Result")
Which = Literal["own", "other"]

router = APIRouter(prefix="/v1/inspector")


class Inspector:
    """What the routes need beside the server's state.

    Args:
        weights: the causal LM, where this process has it.
        other: a second audio tokenizer to compare with; of several codebooks one row is shown.
        other_name: what it is called.
    """

    def __init__(
        self, weights: PreTrainedModel | None = None, other: AudioTokenizer | None = None, other_name: str = ""
    ) -> None:
        self.weights, self.other_name = weights, other_name
        self.other = None if other is None else as_one_row(other)
        # One at a time: looking into things must not take the processor from those that talk.
        self._thread = ThreadPoolExecutor(1, "audiollm-inspect")

    async def compute(self, work: Callable[[], Result]) -> Result:
        """Does some work in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    @property
    def why_no_chances(self) -> str:
        """Why the probabilities of tokens cannot be told; "" if they can."""
        if self.weights is None:
            return "the weights are not in this process: its engine is elsewhere and tells tokens alone"
        attention = str(getattr(self.weights.config, "_attn_implementation", ""))
        if attention.startswith("paged|"):
            return f"the engine has set the attention to {attention}: serve with --engine plain"
        return ""

    def tokenizer(self, which: Which, state: ServerState) -> AudioTokenizer:
        """One of the two.

        Raises:
            ApiError: there is none.
        """
        if which == "other":
            if self.other is None:
                raise refused("tokenizer", "no second audio tokenizer is here: serve with --compare-tokenizer FOLDER")
            return self.other
        if not state.answerer.model.can_listen:
            raise refused("tokenizer", "this model has no audio tokenizer, so it takes no recordings")
        return state.answerer.model.processor.audio_tokenizer


def inspector_of(request: Request) -> Inspector:
    """What the app was built with."""
    inspector: Inspector = request.app.state.inspector
    return inspector


@router.get("")
async def facts(request: Request) -> dict[str, Any]:
    """What can be looked at here."""
    state, inspector = state_of(request), inspector_of(request)
    own = inspector.tokenizer("own", state) if state.answerer.model.can_listen else None
    return {
        "model": state.model_name,
        "longest_seconds": LONGEST_SECONDS,
        "tokenizers": {
            "own": own and _tokenizer_facts(own, f"of {state.model_name}"),
            "other": inspector.other and _tokenizer_facts(inspector.other, inspector.other_name),
        },
        "why_no_chances": inspector.why_no_chances,
    }


@router.post("/recording")
async def recording(
    request: Request, file: Annotated[UploadFile, File()], tokenizer: Annotated[Which, Form()] = "own"
) -> dict[str, Any]:
    """Waveform, mel, codes and gate of a recording."""
    state, inspector = state_of(request), inspector_of(request)
    chosen = inspector.tokenizer(tokenizer, state)
    given = await read_file(state, file, "file")

    async def heard() -> dict[str, Any]:
        with state.answerer.admission.place():
            return await inspector.compute(lambda: _heard(chosen, hear(chosen, given)))

    return await unless_left(request, heard())


@router.post("/reconstruction")
async def reconstruction(
    request: Request, file: Annotated[UploadFile, File()], tokenizer: Annotated[Which, Form()] = "own"
) -> dict[str, Any]:
    """A recording through the codes and back."""
    state, inspector = state_of(request), inspector_of(request)
    chosen = inspector.tokenizer(tokenizer, state)
    if not chosen.can_decode:
        raise refused("tokenizer", "it has no decoder, so its codes cannot become sound")
    given = await read_file(state, file, "file")

    async def rebuilt() -> dict[str, Any]:
        with state.answerer.admission.place():
            return await inspector.compute(lambda: _rebuilt(rebuild(chosen, given)))

    return await unless_left(request, rebuilt())


@router.post("/description")
async def description(request: Request, file: Annotated[UploadFile, File()]) -> dict[str, Any]:
    """What the model says of a recording, field by field of a SAP record."""
    state = state_of(request)
    inspector_of(request).tokenizer("own", state)
    given = await read_file(state, file, "file")

    async def described() -> dict[str, Any]:
        with state.answerer.admission.place():
            fields = await describe_as_sap(state.answerer, given, request_id_of(request), state.answering)
        return {"fields": [asdict(one) for one in fields]}

    return await unless_left(request, described())


class TokensBody(Strict):
    """A chat and its answer."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    answer: str


@router.post("/tokens")
async def tokens(body: TokensBody, request: Request) -> dict[str, Any]:
    """Prompt and answer token by token, each with its probability."""
    state, inspector = state_of(request), inspector_of(request)
    state.check_model(body.model)
    weights = inspector.weights
    if weights is None or inspector.why_no_chances:
        raise ApiError(404, inspector.why_no_chances, param="model", code="no_probabilities")
    if len(body.answer) > state.settings.max_text_characters:
        raise refused("answer", f"has more than {state.settings.max_text_characters} characters: shorten it")
    messages = Conversation("messages", await read_messages(state, body.messages, key_of(request)))
    settings = GenerationSettings(modalities={"text"}, max_new_tokens=1)
    processor = state.answerer.model.processor
    end = processor.tokenizer.eos_token_id

    async def chances() -> dict[str, Any]:
        with state.answerer.admission.place():
            prepared = await state.answerer.prepare(
                AnswerRequest(messages=messages, settings=settings, request_id=request_id_of(request))
            )
            answer = [*processor.plain_token_ids([body.answer])[0], *([] if end is None else [end])]
            rows = await inspector.compute(lambda: token_chances(weights, processor, prepared.prompt_ids, answer))
        return {"tokens": [asdict(row) for row in rows]}

    return await unless_left(request, chances())


def _tokenizer_facts(tokenizer: AudioTokenizer, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "codebook_size": tokenizer.codebook_size,
        "frame_rate": tokenizer.frame_rate,
        "can_decode": tokenizer.can_decode,
        "fingerprint": tokenizer.fingerprint(),
    }


def _heard(tokenizer: AudioTokenizer, heard: HeardRecording) -> dict[str, Any]:
    codes = heard.codes.tolist()
    return {
        "seconds": heard.seconds,
        "shown_seconds": heard.shown_seconds,
        "outline": [[round(value, 4) for value in row] for row in heard.outline.tolist()],
        "mel": _picture(heard.mel),
        "codes": codes,
        "frame_rate": heard.frame_rate,
        "codebook_size": tokenizer.codebook_size,
        "gate": None if heard.gate is None else [round(value, 4) for value in heard.gate.tolist()],
        "no_gate": heard.no_gate,
        "commonness": [round(value, 4) for value in heard.commonness.tolist()],
        "commonness_of": heard.commonness_of,
        "nearest": {
            str(code): [[other, round(distance, 4)] for other, distance in found]
            for code, found in nearest_codes(tokenizer, codes).items()
        },
    }


def _rebuilt(rebuilt: Rebuilt) -> dict[str, Any]:
    def shown(one: Recording) -> dict[str, Any]:
        sound = whole_sound([one.waveform], one.sample_rate, "wav")
        return {"sound": base64.b64encode(sound).decode(), "mel": _picture(mel_picture(one))}

    return {
        "seconds": rebuilt.rebuilt.duration_seconds,
        "num_codes": rebuilt.num_codes,
        "bits_per_second": rebuilt.bits_per_second,
        "mel_distance": rebuilt.mel_distance,
        "original": shown(rebuilt.original),
        "rebuilt": shown(rebuilt.rebuilt),
    }


def _picture(values: Tensor) -> dict[str, Any]:
    """Values in [0, 1] as bytes: row after row, base64."""
    data = (values.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    return {"rows": data.shape[0], "columns": data.shape[1], "bytes": base64.b64encode(data.numpy().tobytes()).decode()}
