"""vLLM, by its URL: it computes the tokens, by our rules, which its plug-in (`vllm_plugin`) keeps to.

Start it with ``vllm serve FOLDER --logits-processors audiollm.serving.engines.vllm_plugin:AnswerRules``, where this
package can be imported. Seeds are drawn in the plug-in, so that an answer does not depend on what vLLM computes beside.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from audiollm.processing.processor import AudioLLMProcessor
from audiollm.vocabulary import AUDIO_END, AUDIO_START, code_token

from .base import EngineError, TokenRequest
from .queues import check_request
from .wire import RULES, rules_as_text

PLUGIN = "audiollm.serving.engines.vllm_plugin:AnswerRules"
_CONNECT_SECONDS = 10.0
_PAUSE_SECONDS = 1.0
"""Between two looks at whether a server that was lost is there again."""

_NEUTRAL = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": True, "return_token_ids": True}
"""What a server would otherwise take from the checkpoint's ``generation_config.json``, or not tell."""


class VllmEngine:
    """Has a vLLM server answer requests; one that is lost is looked for until it is there again.

    Args:
        url: of its OpenAI interface, such as ``http://localhost:8000/v1``.
        processor: of the Audio-LLM that it serves.
        model: its name there; None: the only one there is.
        api_key: one that the server asks for.
        max_running: how many requests it gets at once; it takes care of them as it can.
        timeout_seconds: how long to wait for the next token.

    Raises:
        ImportError: if the client is not installed.
        ValueError: if a limit is none.
    """

    def __init__(
        self,
        url: str,
        processor: AudioLLMProcessor,
        *,
        model: str | None = None,
        api_key: str | None = None,
        max_running: int = 64,
        timeout_seconds: float = 120.0,
    ) -> None:
        if find_spec("openai") is None:
            raise ImportError("the engine vLLM needs the openai client: pip install 'audiollm[label]'")
        if max_running < 1 or timeout_seconds <= 0:
            raise ValueError(f"max_running={max_running}, timeout_seconds={timeout_seconds}: use numbers above 0")
        self._url = url
        self._processor = processor
        self._asked_model = self._model = model
        self._api_key = api_key
        self._max_running = max_running
        self._timeout_seconds = timeout_seconds
        self._context: int | None = None
        self._client: Any = None
        self._places = asyncio.Semaphore(max_running)
        self._is_there = False
        self._looking: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests now."""
        return self._client is not None and self._is_there

    @property
    def max_running(self) -> int:
        """How many requests the server gets at once."""
        return self._max_running

    async def start(self) -> None:
        """Looks whether the server is there, serves this model, and keeps to rules. Raises EngineError if not."""
        if self._client is not None:
            return
        import openai

        timeout = openai.Timeout(self._timeout_seconds, connect=_CONNECT_SECONDS)
        self._places, self._stopping = asyncio.Semaphore(self._max_running), asyncio.Event()
        self._client = openai.AsyncOpenAI(
            base_url=self._url, api_key=self._api_key or "none", timeout=timeout, max_retries=0
        )
        try:
            await self._look_at_the_server()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends it; answers that are being made end with an EngineError."""
        client, self._client, self._is_there = self._client, None, False
        self._stopping.set()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
            self._looking = None
        if client is not None:
            await client.close()

    async def tokens(self, request: TokenRequest) -> AsyncGenerator[list[int], None]:
        """As in `audiollm.serving.engines.base.Engine`; whoever leaves closes the connection, and vLLM stops."""
        if self._client is None:
            raise EngineError("the engine is not running: start it")
        num_tokens = len(self._processor.tokenizer)
        check_request(request, num_tokens, self._context)
        plan = request.plan
        if plan.sampling is not None and plan.seed is None:  # vLLM's global state is the same after each start
            plan = replace(plan, seed=secrets.randbits(63))
        async with self._places:
            if self._stopping.is_set():
                raise EngineError("the engine was stopped")
            stream = await self._send(
                prompt=list(request.prompt_ids),
                stream=True,
                max_tokens=plan.max_new_tokens,
                stop_token_ids=list(plan.eos_token_ids),
                vllm_xargs={RULES: rules_as_text(plan, self._processor.vocabulary, num_tokens)},
            )
            try:
                async for ids in self._ids_of(stream):
                    if max(ids) >= num_tokens:
                        raise EngineError(
                            f"request {request.request_id}: its rules failed at {self._url}: see the log of that server"
                        )
                    yield ids
            finally:
                await stream.close()

    async def _ids_of(self, stream: Any) -> AsyncIterator[list[int]]:
        finish_reason = None
        chunks = aiter(stream)
        while True:
            try:
                chunk = await self._unless_stopped(anext(chunks, None))
            except EngineError:
                raise
            except Exception as error:  # of whatever library carries the connection
                raise self._lost(f"ended in the middle of an answer ({_said(error)})") from error
            if chunk is None:
                break
            for choice in chunk.choices:
                finish_reason = choice.finish_reason or finish_reason
                if choice.token_ids:
                    yield list(choice.token_ids)
        if finish_reason not in ("stop", "length"):
            raise self._lost(f"ended in the middle of an answer (finish_reason {finish_reason})")

    async def _unless_stopped(self, coming: Any) -> Any:
        """What is awaited, unless the engine is stopped before."""
        tasks = [asyncio.ensure_future(coming), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                raise EngineError("the engine was stopped")
            return tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, *, prompt: list[int] | str, max_tokens: int, stream: bool = False, **further: Any) -> Any:
        """A completion.

        Raises:
            ValueError: if the server refuses the request.
            EngineError: if it cannot be reached, or has no such model.
        """
        import openai

        try:
            return await self._client.completions.create(
                model=self._model,
                prompt=prompt,
                max_tokens=max_tokens,
                stream=stream,
                temperature=0.0,
                top_p=1.0,
                presence_penalty=0.0,
                frequency_penalty=0.0,
                extra_body={**_NEUTRAL, **further},
            )
        except openai.BadRequestError as error:
            raise ValueError(f"{self._url}: {_said(error)}") from error
        except openai.APIStatusError as error:
            raise EngineError(f"{self._url}: {_said(error)}") from error
        except Exception as error:  # of whatever library carries the connection
            raise self._lost(f"cannot be reached ({_said(error)})") from error

    # Whether the server is there, and is the right one

    async def _look_at_the_server(self) -> None:
        await self._find_model()
        await self._check_plugin()
        await self._check_vocabulary()
        self._is_there = True

    async def _find_model(self) -> None:
        try:
            served = [one async for one in self._client.models.list()]
        except Exception as error:  # of whatever library carries the connection
            raise EngineError(f"{self._url} cannot be reached ({_said(error)})") from error
        names = [one.id for one in served]
        wanted = self._asked_model or (names[0] if len(names) == 1 else None)
        if wanted not in names:
            shown = ", ".join(names) or "none"
            asked = f"no model {self._asked_model}" if self._asked_model else f"{len(names)} models"
            raise EngineError(f"{self._url} has {asked}: name one of {shown}")
        self._model = wanted
        self._context = getattr(served[names.index(wanted)], "max_model_len", None)

    async def _check_plugin(self) -> None:
        """Rules that are none must be refused; a server that knows nothing of rules would not look at them."""
        try:
            await self._send(prompt=[0], max_tokens=1, vllm_xargs={RULES: "?"})
        except ValueError as error:
            if RULES in str(error):
                return
            raise EngineError(f"{error}: is this vLLM?") from error
        raise EngineError(
            f"{self._url} does not keep to the rules of answers: start vLLM with --logits-processors {PLUGIN}, where "
            "this package can be imported"
        )

    async def _check_vocabulary(self) -> None:
        vocabulary = self._processor.vocabulary
        last = code_token(vocabulary.codebook_size - 1)
        text = f"A dog barks, 3 times.{AUDIO_START}{code_token(0)}{last}{AUDIO_END}"
        ours = self._processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        try:
            completion = await self._send(prompt=text, max_tokens=1, add_special_tokens=False)
        except ValueError as error:
            raise EngineError(str(error)) from error
        theirs = getattr(completion.choices[0], "prompt_token_ids", None)
        if theirs != ours:
            raise EngineError(
                f"{self._url} serves {self._model} with another vocabulary: {text!r} is {theirs} there and {ours} "
                "here; serve the same folder on both sides"
            )

    def _lost(self, what: str) -> EngineError:
        """The error of a lost server, for which is looked from now on."""
        self._is_there = False
        if self._client is not None and self._looking is None:
            self._looking = asyncio.create_task(self._look_again())
        return EngineError(f"{self._url} {what}")

    async def _look_again(self) -> None:
        while not self._is_there:
            await asyncio.sleep(_PAUSE_SECONDS)
            try:
                await self._look_at_the_server()
            except EngineError:
                continue  # what is the matter is told to whoever asks
        self._looking = None


def _said(error: Exception) -> str:
    """What an error says, and what lies behind it where it says little."""
    cause = error.__cause__
    told = f"{type(error).__name__}: {error}"
    return told if cause is None else f"{told} ({type(cause).__name__}: {cause})"
