"""Two Audio-LLMs to be served, requests to them, and what engines make of these."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from audiollm.generation.passed_on import audio_sampling_of_checkpoint
from audiollm.generation.plan import context_of
from audiollm.generation.planning import plan_answers
from audiollm.generation.settings import GenerationSettings
from audiollm.generation.turns import turns_of
from audiollm.modeling import AudioLLM
from audiollm.serving.engines.base import Engine, TokenRequest
from audiollm.serving.engines.batching import BatchingEngine
from audiollm.serving.engines.plain import PlainEngine

SPOKEN = [turns_of("a dog barks")]
SETTINGS: dict[str, dict[str, Any]] = {
    "text": {"max_new_tokens": 12},
    "audio": {"modalities": {"audio"}, "do_sample": False, "max_seconds": 0.6},
    "long audio": {"modalities": {"audio"}, "do_sample": False, "min_seconds": 0.8, "max_seconds": 1.2},
    "both": {"modalities": {"text", "audio"}, "do_sample": False, "max_new_tokens": 20},
    "turns": {"modalities": {"text", "audio"}, "do_sample": False, "turns": SPOKEN, "max_seconds": 1.0},
    "one token": {"max_new_tokens": 1},
}
"""Kinds of greedy answers."""
DRAWN: dict[str, dict[str, Any]] = {
    "text": {"max_new_tokens": 12, "temperature": 1.2, "top_k": 0, "top_p": 0.95},
    "audio": {"modalities": {"audio"}, "min_seconds": 0.6, "max_seconds": 1.0, "temperature": 1.5},
    "both": {"modalities": {"text", "audio"}, "max_new_tokens": 20, "repetition_window": 0},
    "turns": {"modalities": {"text", "audio"}, "turns": SPOKEN, "max_seconds": 1.0, "min_p": 0.01},
}
"""Kinds of drawn ones."""


class Client:
    """Makes requests to a model, and reads the answers of an engine; also tells what `AudioLLM.generate` answers."""

    def __init__(self, model: AudioLLM) -> None:
        self.model = model

    def ids_of(self, text: str) -> Tensor:
        """A prompt, ``[1, S]``."""
        inputs: Any = self.model.processor.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True
        )
        return inputs["input_ids"]

    def request(self, prompt: str | Tensor, name: str = "r", **settings: Any) -> TokenRequest:
        input_ids = prompt if isinstance(prompt, Tensor) else self.ids_of(prompt)
        llm = self.model.model
        wanted = GenerationSettings.of(settings).with_audio_sampling(
            audio_sampling_of_checkpoint(llm.generation_config)
        )
        plan = plan_answers(
            wanted,
            self.model.processor,
            input_ids,
            generation_config=llm.generation_config,
            context=context_of(llm.config),
        )
        return TokenRequest(name, tuple(input_ids[0].tolist()), plan)

    def generated(self, prompt: str | Tensor, **settings: Any) -> list[int]:
        input_ids = prompt if isinstance(prompt, Tensor) else self.ids_of(prompt)
        result = self.model.generate(input_ids=input_ids, return_waveforms=False, **settings)
        return result.token_ids[0].tolist()

    @staticmethod
    async def read(engine: Engine, request: TokenRequest) -> list[int]:
        return [one async for ids in engine.tokens(request) for one in ids]

    @classmethod
    async def read_all(cls, engine: Engine, requests: Iterable[TokenRequest]) -> list[Any]:
        """Of each its ids, or the error it ended with."""
        return await asyncio.gather(*(cls.read(engine, one) for one in requests), return_exceptions=True)

    @staticmethod
    @asynccontextmanager
    async def running(engine: Engine) -> AsyncIterator[Engine]:
        await engine.start()
        try:
            yield engine
        finally:
            await engine.stop()

    def answers(self, engine: Engine, requests: Iterable[TokenRequest]) -> list[Any]:
        """`read_all` of an engine that is started for it."""

        async def main() -> list[Any]:
            async with self.running(engine):
                return await self.read_all(engine, requests)

        return asyncio.run(main())

    @staticmethod
    def within(seconds: float, main: Callable[[], Awaitable[Any]]) -> Any:
        """Runs, and fails where something never ends."""
        return asyncio.run(asyncio.wait_for(main(), seconds))  # type: ignore[arg-type]


@pytest.fixture(autouse=True, scope="module")
def few_objects_to_search() -> Iterator[None]:
    """transformers collects garbage at the end of every batch, which takes long among all that tests have imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_llm(make_llm: Callable[..., Any], make_text_tokenizer: Callable[[], Any]) -> AudioLLM:
    """An untrained Audio-LLM of 64 codes that ends texts rarely."""
    from audiollm.tokenizer.configuration import UniAudioTokenizerConfig
    from audiollm.tokenizer.modeling import UniAudioTokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = UniAudioTokenizer(
            UniAudioTokenizerConfig(
                num_mel_bins=16, d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16,
                quantize_vocab_size=64, quantize_position=1, quantize_encoder_only=True, pooling_kernel_size=2,
            )
        ).eval()  # fmt: skip
    return AudioLLM.create(make_llm(), make_text_tokenizer(), codec)


@pytest.fixture(scope="session")
def mini_llm() -> AudioLLM:
    """The embedded model."""
    return AudioLLM.from_pretrained()


@pytest.fixture(scope="session")
def tiny(tiny_llm: AudioLLM) -> Client:
    """A client of the untrained model."""
    return Client(tiny_llm)


@pytest.fixture(scope="session", params=["tiny", "mini"])
def client(request: pytest.FixtureRequest) -> Client:
    """A client of each model."""
    return Client(request.getfixturevalue(f"{request.param}_llm"))


@pytest.fixture(params=[PlainEngine, BatchingEngine])
def make_engine(request: pytest.FixtureRequest) -> Callable[[AudioLLM], Engine]:
    """Makes each kind of engine that runs here."""
    return request.param


@pytest.fixture(scope="session")
def greedy() -> dict[str, dict[str, Any]]:
    """Kinds of greedy answers."""
    return SETTINGS


@pytest.fixture(scope="session")
def drawn() -> dict[str, dict[str, Any]]:
    """Kinds of drawn answers."""
    return DRAWN
