"""What every engine keeps to: the tokens of `AudioLLM.generate`, cancelling, ending, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from audiollm.modeling import AudioLLM
from audiollm.serving.engines.base import Engine, EngineError

MakeEngine = Callable[[AudioLLM], Engine]


def test_greedy_answers_are_those_of_generate(
    client: Any, make_engine: MakeEngine, greedy: dict[str, dict[str, Any]]
) -> None:
    prompts = {name: f"Say something about {name}." for name in greedy}
    requests = [client.request(prompts[name], name, **settings) for name, settings in greedy.items()]
    found = client.answers(make_engine(client.model), requests)
    wanted = [client.generated(prompts[name], **settings) for name, settings in greedy.items()]
    assert found == wanted


def test_drawn_answers_are_those_of_generate(
    client: Any, make_engine: MakeEngine, drawn: dict[str, dict[str, Any]]
) -> None:
    requests = [client.request("Say it.", name, seed=7, **settings) for name, settings in drawn.items()]
    found = client.answers(make_engine(client.model), requests)
    assert found == [client.generated("Say it.", seed=7, **settings) for settings in drawn.values()]


def test_a_prompt_of_one_id_and_one_that_ends_inside_a_segment(tiny: Any, make_engine: MakeEngine) -> None:
    vocabulary = tiny.model.vocabulary
    start, code = vocabulary.start_id, vocabulary.first_code_id
    for ids, settings in (([5], {"max_new_tokens": 4}), ([5, start, code + 3, code + 4], {"modalities": "audio"})):
        prompt = torch.tensor([ids])
        settings = {**settings, "do_sample": False, "max_new_tokens": 6}
        [found] = tiny.answers(make_engine(tiny.model), [tiny.request(prompt, **settings)])
        assert found == tiny.generated(prompt, **settings)


def test_tokens_come_one_after_the_other_and_not_at_the_end(tiny: Any, make_engine: MakeEngine) -> None:
    async def main() -> int:
        async with tiny.running(make_engine(tiny.model)) as engine:
            request = tiny.request("Go.", max_new_tokens=40)
            return len([ids async for ids in engine.tokens(request)])

    assert tiny.within(30, main) > 1


def test_whoever_leaves_frees_the_place(tiny: Any, make_engine: MakeEngine) -> None:
    engine = make_engine(tiny.model)

    async def main() -> list[int]:
        async with tiny.running(engine):
            for _ in range(2 * engine.max_running):
                tokens = engine.tokens(tiny.request("On and on.", modalities="audio", min_seconds=30, do_sample=False))
                await anext(tokens)
                await tokens.aclose()
            return await tiny.read(engine, tiny.request("And now?", max_new_tokens=3))

    assert tiny.within(30, main) == tiny.generated("And now?", max_new_tokens=3)


def test_whoever_leaves_while_waiting_gives_way(tiny: Any, make_engine: MakeEngine) -> None:
    engine = make_engine(tiny.model)
    endless = {"modalities": "audio", "min_seconds": 30, "do_sample": False}

    async def main() -> None:
        async with tiny.running(engine):
            running = [engine.tokens(tiny.request("On and on.", **endless)) for _ in range(engine.max_running)]
            for one in running:
                await anext(one)
            waiting = asyncio.create_task(tiny.read(engine, tiny.request("Me too.", **endless)))
            last = asyncio.create_task(tiny.read(engine, tiny.request("And me?", max_new_tokens=3)))
            await asyncio.sleep(0.05)
            assert not last.done()
            waiting.cancel()
            for one in running:
                await one.aclose()
            assert await last == tiny.generated("And me?", max_new_tokens=3)

    tiny.within(30, main)


def test_sixteen_clients_some_of_whom_leave_each_get_their_own(
    tiny: Any, make_engine: MakeEngine, greedy: dict[str, dict[str, Any]], drawn: dict[str, dict[str, Any]]
) -> None:
    kinds = [*greedy.values(), *({**one, "seed": number} for number, one in enumerate(drawn.values()))]
    asked = [(f"This is number {number}.", kinds[number % len(kinds)]) for number in range(16)]
    requests = [tiny.request(prompt, str(number), **kind) for number, (prompt, kind) in enumerate(asked)]

    async def leave_after(engine: Engine, number: int, num_pieces: int) -> list[int]:
        tokens, found = engine.tokens(requests[number]), []
        async for ids in tokens:
            found += ids
            if (num_pieces := num_pieces - 1) <= 0:
                break
        await tokens.aclose()
        return found

    async def main() -> list[list[int]]:
        async with tiny.running(make_engine(tiny.model)) as engine:
            return await asyncio.gather(
                *(leave_after(engine, number, 2 if number % 3 == 1 else 1000) for number in range(16))
            )

    for number, found in enumerate(tiny.within(60, main)):
        prompt, kind = asked[number]
        wanted = tiny.generated(prompt, **kind)
        assert found == (wanted[: len(found)] if number % 3 == 1 else wanted), number


def test_it_can_be_started_and_ended_again_and_leaves_the_model_as_it_was(tiny: Any, make_engine: MakeEngine) -> None:
    engine = make_engine(tiny.model)
    head, attention = type(tiny.model.model.get_output_embeddings()), tiny.model.model.config._attn_implementation
    assert head is nn.Linear

    async def main() -> None:
        for _ in range(2):
            assert not engine.is_ready
            await engine.start()
            await engine.start()
            assert engine.is_ready
            assert await tiny.read(engine, tiny.request("Again.", max_new_tokens=3)) == wanted
            await engine.stop()
            await engine.stop()
            with pytest.raises(EngineError, match=r"stopped|not running"):
                await tiny.read(engine, tiny.request("Again.", max_new_tokens=3))

    wanted = tiny.generated("Again.", max_new_tokens=3)
    tiny.within(30, main)
    assert type(tiny.model.model.get_output_embeddings()) is head
    assert tiny.model.model.config._attn_implementation == attention
    assert tiny.generated("Again.", max_new_tokens=3) == wanted


def test_answers_that_are_being_made_at_the_end_tell_so(tiny: Any, make_engine: MakeEngine) -> None:
    engine = make_engine(tiny.model)

    async def main() -> list[Any]:
        await engine.start()
        endless = tiny.request("On and on.", modalities="audio", min_seconds=30, do_sample=False)
        reading = [asyncio.create_task(tiny.read(engine, endless)) for _ in range(engine.max_running + 2)]
        await asyncio.sleep(0.1)
        await engine.stop()
        return await asyncio.gather(*reading, return_exceptions=True)

    for error in tiny.within(30, main):
        assert isinstance(error, EngineError)
        assert "stopped" in str(error)


def test_a_step_that_fails_ends_its_answers_and_the_next_ones_are_made(
    tiny: Any, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, llm = make_engine(tiny.model), tiny.model.model
    failing, forward = [True], llm.forward

    def fail_once(*arguments: Any, **inputs: Any) -> Any:
        if failing:
            failing.clear()
            raise RuntimeError("out of memory")
        return forward(*arguments, **inputs)

    async def main() -> None:
        async with tiny.running(engine):
            with pytest.raises(EngineError, match=r"request first: .*out of memory"):
                await tiny.read(engine, tiny.request("One.", "first", max_new_tokens=5))
            assert engine.is_ready
            assert await tiny.read(engine, tiny.request("Two.", max_new_tokens=5)) == wanted

    wanted = tiny.generated("Two.", max_new_tokens=5)
    monkeypatch.setattr(llm, "forward", fail_once)
    tiny.within(30, main)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((), "request odd: the prompt holds no ids"),
        ((3, -1), "request odd: the prompt holds -1"),
        ((3, 10**6), "request odd: the prompt holds 1000000: .*whole numbers from 0 to"),
        ((3, True), "request odd: the prompt holds True"),
        ((3, 2.0), r"request odd: the prompt holds 2\.0"),
        ((3,) * 1020, r"1020 tokens and the answer may take 12, but the\s+context holds 1024"),
    ],
)
def test_prompts_that_are_none_are_refused_by_name(
    tiny: Any, make_engine: MakeEngine, ids: tuple[Any, ...], message: str
) -> None:
    request = replace(tiny.request("x", "odd", max_new_tokens=12), prompt_ids=ids)
    [error] = tiny.answers(make_engine(tiny.model), [request])
    assert isinstance(error, ValueError)
    with pytest.raises(ValueError, match=message):
        raise error


def test_a_plan_for_several_prompts_is_refused(tiny: Any, make_engine: MakeEngine) -> None:
    plan = replace(tiny.request("x").plan, turns=(((5,),), ((6,),)))
    [error] = tiny.answers(make_engine(tiny.model), [replace(tiny.request("x"), plan=plan)])
    assert isinstance(error, ValueError)
    assert "turns for 2 answers" in str(error)
