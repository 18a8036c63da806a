"""Answers are those of the logits, with caches or without, in a batch or alone, and keep to the marks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from audiollm.uniaudio import StreamedFrame, StreamedText, UniAudioGeneration, UniAudioLM, lay_out
from audiollm.uniaudio.layout import Layout
from audiollm.uniaudio.settings import Choice

MakeLM = Callable[..., UniAudioLM]


@pytest.fixture(params=["llama", "qwen2"])
def model(request: pytest.FixtureRequest, make_lm: MakeLM) -> UniAudioLM:
    model = make_lm(request.param)
    torch.manual_seed(3)
    with torch.no_grad():  # so that greedy answers vary
        for name in ("audio_head", "audio_embeddings.weight", "projection.weight"):
            model.get_parameter(name).normal_(0, 0.5)
    return model


def prompt(model: UniAudioLM, words: list[int], frames: list[list[int]] | None = None) -> Layout:
    layout = lay_out("text_only", {"text": words}, model.config)
    if frames is None:
        return layout
    parts = {"reasoning": torch.tensor(frames).T, "reconstruction": torch.tensor(frames).T}
    audio = lay_out("audio_only", parts, model.config)
    return Layout(
        torch.cat((layout.input_ids, audio.input_ids)),
        torch.cat((layout.stream_mask, audio.stream_mask)),
        torch.cat((layout.loss_mask, audio.loss_mask)),
    )


def rows_of(*layouts: Layout) -> tuple[Tensor, Tensor]:
    """Prompts padded on the left."""
    longest = max(map(len, layouts))
    ids = [torch.nn.functional.pad(one.input_ids, (0, 0, longest - len(one), 0)) for one in layouts]
    masks = [torch.nn.functional.pad(one.stream_mask, (0, 0, longest - len(one), 0)) for one in layouts]
    return torch.stack(ids), torch.stack(masks)


def equal(one: UniAudioGeneration, other: UniAudioGeneration) -> bool:
    pairs = zip(
        [*one.text_ids, *one.reasoning, *one.reconstruction],
        [*other.text_ids, *other.reasoning, *other.reconstruction],
        strict=True,
    )
    return all(torch.equal(*pair) for pair in pairs) and one.finished == other.finished


@pytest.mark.parametrize("settings", [{}, {"guidance_scale": 2.0}, {"output": "text"}], ids=str)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_the_same_without_caches(model: UniAudioLM, settings: dict[str, Any], temperature: float) -> None:
    ids, mask = rows_of(prompt(model, [4, 5, 6]), prompt(model, [9], [[1, 2, 3], [4, 0, 1]]))
    options = {"temperature": temperature, "seed": 4, "max_frames": 8, "max_new_tokens": 8, **settings}
    assert equal(
        model.generate(ids, mask, **options, use_cache=True), model.generate(ids, mask, **options, use_cache=False)
    )


@pytest.mark.parametrize("settings", [{}, {"guidance_scale": 2.0}, {"output": "text"}], ids=str)
def test_a_prompt_gets_the_same_answer_in_a_batch_and_alone(model: UniAudioLM, settings: dict[str, Any]) -> None:
    prompts = [prompt(model, [4, 5, 6]), prompt(model, [9], [[1, 2, 3]]), prompt(model, [7])]
    options = {"temperature": 0.0, "max_frames": 6, "max_new_tokens": 6, **settings}
    together = model.generate(*rows_of(*prompts), **options)
    for number, one in enumerate(prompts):
        alone = model.generate(*rows_of(one), **options)
        assert torch.equal(alone.text_ids[0], together.text_ids[number])
        assert torch.equal(alone.reasoning[0], together.reasoning[number])
        assert torch.equal(alone.reconstruction[0], together.reconstruction[number])


def test_codes_are_inside_their_own_part_and_no_marks(model: UniAudioLM) -> None:
    ids, mask = rows_of(*[prompt(model, [word]) for word in range(4, 12)])
    answers = model.generate(ids, mask, temperature=3.0, top_k=None, seed=1, max_frames=12)
    assert any(answers.finished)
    assert sum(one.shape[1] for one in answers.reasoning) > 0
    assert sum(one.shape[1] for one in answers.reconstruction) > 0
    for part, size in (("reasoning", 5), ("reconstruction", 7)):
        for codes in getattr(answers, part):
            assert codes.shape[0] == 3
            assert bool(((codes >= 0) & (codes < size)).all())
    for one in zip(answers.reasoning, answers.reconstruction, strict=True):
        assert sum(codes.shape[1] for codes in one) <= 12


def test_greedy_frames_are_those_of_the_logits_of_the_whole_sequence(model: UniAudioLM) -> None:
    """A plain reading of the grammar: marks around each part, the largest logit that may be."""
    config = model.config
    start = prompt(model, [4, 5])
    answer = model.generate(*rows_of(start), temperature=0.0, max_frames=7)
    parts = {"reasoning": answer.reasoning[0], "reconstruction": answer.reconstruction[0]}
    rows = list(start.input_ids)
    for part, codes in parts.items():
        marks, offset = config.marks.of_part(part), config.offset_of(part)
        rows.append(torch.tensor([marks["bos"] + offset] * 3 + [0]))
        for frame in codes.T:
            mask = torch.stack(
                [torch.tensor([False] * 3 + [True])] * len(start)
                + [torch.tensor([True] * 3 + [False])] * (len(rows) - len(start))
            )
            with torch.no_grad():
                hidden = model(torch.stack(rows)[None], mask[None]).last_hidden_state[:, -1]
                logits = model.frame_logits(hidden, frame[None] + offset)[0]
            for stream in range(3):
                allowed = logits[stream, offset : offset + config.size_of(part)].clone()
                for name, one in marks.items():
                    if stream or name != "eos":
                        allowed[one] = -torch.inf
                assert int(allowed.argmax()) == int(frame[stream])
            rows.append(torch.cat((frame + offset, torch.tensor([0]))))
        rows.append(torch.tensor([marks["eos"] + offset] * 3 + [0]))
    assert sum(codes.shape[1] for codes in parts.values()) > 0


def test_greedy_text_is_that_of_the_text_llm(model: UniAudioLM) -> None:
    words = [4, 5, 6]
    answer = model.generate(
        *rows_of(prompt(model, words)), output="text", temperature=0.0, max_new_tokens=6, stop_ids=[]
    )
    expected = model.text_llm.generate(
        torch.tensor([words]), do_sample=False, max_new_tokens=6, eos_token_id=None, pad_token_id=0
    )[0, len(words) :]
    assert torch.equal(answer.text_ids[0], expected)
    assert answer.finished == [False]


def test_text_ends_at_a_stop_id(model: UniAudioLM) -> None:
    ids, mask = rows_of(prompt(model, [4, 5, 6]))
    whole = model.generate(ids, mask, output="text", temperature=0.0, max_new_tokens=6, stop_ids=[]).text_ids[0]
    stop = int(whole[3])
    cut = model.generate(ids, mask, output="text", temperature=0.0, max_new_tokens=6, stop_ids=[stop])
    assert torch.equal(cut.text_ids[0], whole[: whole.tolist().index(stop)])
    assert cut.finished == [True]


def test_a_seed_repeats_an_answer_and_leaves_other_draws_alone(model: UniAudioLM) -> None:
    ids, mask = rows_of(prompt(model, [4, 5]))
    options = {"temperature": 2.0, "top_k": None, "max_frames": 10}
    state = torch.get_rng_state()
    one = model.generate(ids, mask, seed=1, **options)
    assert torch.equal(state, torch.get_rng_state())
    assert equal(one, model.generate(ids, mask, seed=1, **options))
    assert not all(equal(one, model.generate(ids, mask, seed=seed, **options)) for seed in (2, 3, 4))


def test_frames_and_tokens_come_one_by_one_as_in_the_whole_answer(model: UniAudioLM) -> None:
    ids, mask = rows_of(prompt(model, [4, 5]), prompt(model, [6]))
    options: dict[str, Any] = {"temperature": 1.0, "seed": 2, "max_frames": 6, "max_new_tokens": 6}
    whole = model.generate(ids, mask, **options)
    events = list(model.stream(ids, mask, **options))
    for row in range(2):
        for part in ("reasoning", "reconstruction"):
            codes = [
                event.codes
                for event in events
                if isinstance(event, StreamedFrame) and (event.row, event.part) == (row, part)
            ]
            assert torch.equal(torch.stack(codes, 1) if codes else torch.zeros(3, 0).long(), getattr(whole, part)[row])
    text = model.generate(ids, mask, output="text", **options)
    tokens = [event for event in model.stream(ids, mask, output="text", **options) if isinstance(event, StreamedText)]
    assert [[one.token_id for one in tokens if one.row == row] for row in range(2)] == [
        one.tolist() for one in text.text_ids
    ]


def test_one_part_alone_is_written_where_it_is_asked_for(model: UniAudioLM) -> None:
    answer = model.generate(
        *rows_of(prompt(model, [4])), parts=["reconstruction"], temperature=1.0, seed=0, max_frames=5
    )
    assert answer.reasoning[0].shape == (3, 0)
    assert answer.reconstruction[0].shape[0] == 3


def test_guidance_moves_away_from_the_prompt_left_out(model: UniAudioLM) -> None:
    ids, mask = rows_of(prompt(model, [4, 5, 6, 7]))
    pad = torch.zeros_like(ids)
    pad[..., -1] = model.config.marks.text_pad
    options = {"temperature": 0.0, "max_frames": 8, "guidance_scale": 3.0}
    own = model.generate(ids, mask, **options)
    assert equal(own, model.generate(ids, mask, unconditional_ids=pad, unconditional_mask=mask, **options))
    # Away from itself is nowhere.
    plain = model.generate(ids, mask, temperature=0.0, max_frames=8)
    assert equal(plain, model.generate(ids, mask, unconditional_ids=ids, unconditional_mask=mask, **options))


def test_the_largest_are_drawn_from() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).repeat(500, 1)
    drawn = Choice(1.0, 2, seed=0)(logits)
    assert set(drawn.tolist()) == {2, 3}
    assert set(Choice(0.0, None)(logits).tolist()) == {3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output": "video"}, "output='video'"),
        ({"parts": []}, "at most once"),
        ({"parts": ["melody"]}, "melody"),
        ({"max_frames": 0}, "max_frames=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_k": 0}, "top_k=0"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"guidance_scale": 2.0, "output": "text"}, "for audio alone"),
        ({"unconditional_ids": torch.zeros(1, 1, 4)}, "give both or neither"),
        ({"output": "text", "stop_ids": [99]}, r"99 is not in \[0, 40\)"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_settings_that_do_not_fit_are_refused(make_lm: MakeLM, settings: dict[str, Any], message: str) -> None:
    model = make_lm()
    with pytest.raises(ValueError, match=message):
        model.generate(*rows_of(prompt(model, [4])), **settings)


def test_prompts_padded_elsewhere_are_refused(make_lm: MakeLM) -> None:
    model = make_lm()
    ids, mask = rows_of(prompt(model, [4, 5, 6]))
    mask[:, -1] = False
    with pytest.raises(ValueError, match="ends with padding"):
        model.generate(ids, mask)
    mask[:, -1, -1] = True
    mask[:, 1] = False
    with pytest.raises(ValueError, match="between others"):
        model.generate(ids, mask)
