"""Many answers at once: none knows of the others, none waits for ever, and one that fails fails alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

from audiollm.modeling import AudioLLM
from audiollm.serving.engines.base import EngineError
from audiollm.serving.engines.batching import BatchingEngine
from audiollm.serving.engines.rules import TokenRules


def test_a_seed_gives_the_same_alone_and_among_eight_others(client: Any, drawn: dict[str, dict[str, Any]]) -> None:
    engine = BatchingEngine(client.model, max_running=9)
    settings = {**drawn["audio"], "seed": 11}
    request = client.request("Sing.", **settings)
    others = [
        client.request(f"Sing number {number}.", **{**list(drawn.values())[number % 4], "seed": number})
        for number in range(8)
    ]
    [alone] = client.answers(engine, [request])
    assert client.answers(engine, [*others[:4], request, *others[4:]])[4] == alone


def test_a_prompt_that_comes_in_over_several_steps_gets_the_same_answer(tiny: Any) -> None:
    engine = BatchingEngine(tiny.model, max_running=2, max_batch_tokens=8)
    prompts = ["A long question, much longer than a step of the engine is. " * 3, "Short."]
    requests = [tiny.request(prompt, max_new_tokens=6) for prompt in prompts]
    assert tiny.answers(engine, requests) == [tiny.generated(prompt, max_new_tokens=6) for prompt in prompts]


def test_answers_wait_for_room_in_the_cache_and_none_for_ever(tiny: Any) -> None:
    """Room for one long answer, or a few short ones; those that came later let the long one in."""
    engine = BatchingEngine(tiny.model, max_running=4, page_size=8, num_pages=20)
    short = [tiny.request(f"S{number}", max_new_tokens=4) for number in range(6)]
    long = tiny.request("L", max_new_tokens=60)
    order: list[str] = []

    async def read(name: str, request: Any) -> list[int]:
        found = await tiny.read(engine, request)
        order.append(name)
        return found

    async def main() -> list[Any]:
        async with tiny.running(engine):
            named = [("short", one) for one in short[:3]] + [("long", long)] + [("late", one) for one in short[3:]]
            return await asyncio.gather(*(read(*one) for one in named))

    found = tiny.within(30, main)
    assert order == ["short"] * 3 + ["long"] + ["late"] * 3
    assert found[3] == tiny.generated("L", max_new_tokens=60)


def test_what_the_cache_can_never_hold_is_refused_with_its_numbers(tiny: Any) -> None:
    engine = BatchingEngine(tiny.model, page_size=16, num_pages=3)
    request = tiny.request("x", "big", max_new_tokens=100)
    [error] = tiny.answers(engine, [request])
    assert isinstance(error, ValueError)
    wanted = f"request big: the prompt has {len(request.prompt_ids)} tokens and the answer may take 100, but .* 48: "
    with pytest.raises(ValueError, match=wanted):
        raise error


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"max_running": 0}, "max_running=0"),
        ({"max_running": 8, "max_batch_tokens": 4}, "max_batch_tokens=4"),
        ({"page_size": 2}, "page_size=2: use 4 or more"),
        ({"num_pages": 0}, "num_pages=0: use 1 or more"),
    ],
)
def test_sizes_that_are_none_are_refused(tiny: Any, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchingEngine(tiny.model, **sizes)


def test_an_answer_that_fails_takes_no_other_with_it(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = TokenRules.choose

    def fail_at_the_third(rules: TokenRules, logits: Any) -> int:
        if rules.num_new_tokens == 2 and rules._max_new_tokens == 77:
            raise ValueError("the logits hold NaN")
        return choose(rules, logits)

    monkeypatch.setattr(TokenRules, "choose", fail_at_the_third)
    engine = BatchingEngine(tiny.model)
    bad = tiny.request("Bad.", "bad", max_new_tokens=77)
    good = [tiny.request(f"Good {number}.", max_new_tokens=9) for number in range(3)]
    first, error, *others = tiny.answers(engine, [good[0], bad, *good[1:]])
    assert isinstance(error, EngineError)
    assert "request bad: ValueError: the logits hold NaN" in str(error)
    assert [first, *others] == [tiny.generated(f"Good {number}.", max_new_tokens=9) for number in range(3)]
    assert (engine.num_running, engine.num_waiting) == (0, 0)


def test_those_that_wait_when_a_step_fails_are_answered_by_a_new_batch(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, llm = BatchingEngine(tiny.model, max_running=2), tiny.model.model
    forward, calls = llm.forward, []

    def fail_at_the_third(*arguments: Any, **inputs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("a cosmic ray")
        return forward(*arguments, **inputs)

    wanted = [tiny.generated(f"Number {number}.", max_new_tokens=6) for number in range(5)]
    monkeypatch.setattr(llm, "forward", fail_at_the_third)
    found = tiny.answers(engine, [tiny.request(f"Number {number}.", max_new_tokens=6) for number in range(5)])
    assert [isinstance(one, EngineError) for one in found] == [True] * 2 + [False] * 3
    assert found[2:] == wanted[2:]


def test_one_that_fails_again_and_again_gives_up_and_can_be_started_anew(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, llm = BatchingEngine(tiny.model), tiny.model.model

    async def main() -> None:
        async with tiny.running(engine):
            with monkeypatch.context() as broken:
                broken.setattr(llm, "forward", lambda *_, **__: 1 / 0)
                for _ in range(3):
                    with pytest.raises(EngineError, match="division by zero"):
                        await tiny.read(engine, tiny.request("Hello?", max_new_tokens=2))
                with pytest.raises(EngineError, match="failed 3 times in a row"):
                    await tiny.read(engine, tiny.request("Hello?", max_new_tokens=2))
            assert engine.has_failed
            assert not engine.is_ready
            await engine.start()
            assert not engine.has_failed
            assert await tiny.read(engine, tiny.request("Hello?", max_new_tokens=2)) == wanted

    wanted = tiny.generated("Hello?", max_new_tokens=2)
    tiny.within(30, main)


def test_a_model_that_computes_attention_eagerly_does_so_again_afterwards(make_llm: Any, tiny: Any) -> None:
    llm = make_llm(vocab_size=tiny.model.model.config.vocab_size)
    llm.set_attn_implementation("eager")
    client = type(tiny)(AudioLLM(llm, tiny.model.processor))
    settings = {"max_new_tokens": 8, "eos_token_id": 1}
    [found] = client.answers(BatchingEngine(client.model), [client.request("Slowly.", **settings)])
    assert llm.config._attn_implementation == "eager"
    assert found == client.generated("Slowly.", **settings)


def test_rules_go_on_behind_tokens_that_are_there(tiny: Any, drawn: dict[str, dict[str, Any]]) -> None:
    model = tiny.model
    request = tiny.request("Sing.", **{**drawn["audio"], "seed": 4})
    arguments = (request.plan, model.vocabulary, len(model.processor.tokenizer), request.prompt_ids)
    logits = torch.randn(30, model.model.config.vocab_size, generator=torch.Generator().manual_seed(0))
    whole = TokenRules(*arguments)
    ids = [whole.choose(one) for one in logits[:12]]
    again = TokenRules(*arguments, ids[:5])
    assert again.num_new_tokens == 5
    assert [again.choose(one) for one in logits[5:12]] == ids[5:]


def test_the_head_computes_no_more_than_what_may_follow(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a segment the rows of text are not read."""
    from audiollm.generation import narrow_head

    widths = set()
    logits_of = narrow_head._logits

    def watched(head: Any, hidden: Any, columns: Any) -> Any:
        widths.add(len(columns.ids(torch.device("cpu"))))
        return logits_of(head, hidden, columns)

    monkeypatch.setattr(narrow_head, "_logits", watched)
    requests = [tiny.request(f"Sing {n}.", modalities="audio", do_sample=False, max_seconds=0.4) for n in range(3)]
    tiny.answers(BatchingEngine(tiny.model), requests)
    assert widths
    assert max(widths) <= tiny.model.vocabulary.codebook_size + 3
