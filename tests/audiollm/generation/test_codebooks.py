"""Inside an audio segment only the codebook follows whose turn it is, and it ends where all have the same frames."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiollm.generation.grammar import AudioSegmentLogitsProcessor
from audiollm.generation.plan import AnswerPlan
from audiollm.generation.sampling import SamplingSettings
from audiollm.generation.turns import TurnsLogitsProcessor
from audiollm.serving.engines.wire import rules_as_text, rules_from_text
from audiollm.tokenizer.layout import CodeLayout
from audiollm.vocabulary import AudioVocabulary

# 10 text ids (9 ends a turn), start 10, end 11, then the symbols.
EOS, START, END, FIRST = 9, 10, 11, 12
LAYOUTS = [CodeLayout((5, 3)), CodeLayout((5, 3), "delay"), CodeLayout((4,) * 8), CodeLayout((4,) * 8, "delay")]


def vocabulary_of(layout):
    return AudioVocabulary(layout.size, FIRST, START, END, layout)


def grammar_of(layout, modalities=("audio",), **limits):
    options = {"num_tokens": FIRST + layout.size, "eos_token_ids": [EOS], **limits}
    return AudioSegmentLogitsProcessor(vocabulary_of(layout), modalities, **options)


def walk(grammar, num_tokens, rows, random, length=200):
    """Rows of ids, each of them drawn among those that may follow; a row that has ended is filled up with ends."""
    ids = torch.zeros(rows, 0, dtype=torch.int64)
    done = [False] * rows
    for _ in range(length):
        allowed = grammar(ids, torch.zeros(rows, num_tokens + 3)).isfinite()
        columns = grammar.columns(ids)
        assert not allowed[:, num_tokens:].any()
        chosen = []
        for row in range(rows):
            choices = allowed[row].nonzero()[:, 0].tolist()
            assert choices
            if columns is not None and not done[row]:
                assert set(choices) <= set(columns.ids(torch.device("cpu")).tolist())
            # Ends are drawn now and then, however many codes there are.
            ends = [one for one in choices if one in (END, EOS)]
            chosen.append(EOS if done[row] else random.choice(ends if ends and random.random() < 0.3 else choices))
            done[row] = done[row] or chosen[-1] == EOS
        ids = torch.cat([ids, torch.tensor(chosen)[:, None]], dim=1)
        if all(done):
            return [row[: row.index(EOS)] for row in ids.tolist()]
    return [row for row in ids.tolist() if EOS in row]


def segments_of(row):
    segments, inside = [], False
    for token_id in row:
        if token_id == START:
            inside, segments = True, [*segments, []]
        elif token_id == END:
            inside = False
        elif inside:
            segments[-1].append(token_id)
    assert not inside
    return segments


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(LAYOUTS), st.sampled_from([("audio",), ("text", "audio")]), st.randoms(use_true_random=False))
def test_whatever_may_follow_can_be_decoded(layout, modalities, random):
    vocabulary = vocabulary_of(layout)
    for row in walk(grammar_of(layout, modalities), FIRST + layout.size, 3, random):
        for segment in segments_of(row):
            assert vocabulary.token_ids_to_codebooks(segment).shape[1] >= 1


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(LAYOUTS), st.integers(1, 4), st.integers(0, 3), st.randoms(use_true_random=False))
def test_limits_count_frames(layout, min_frames, more, random):
    limits = {"min_codes": layout.length(min_frames), "max_codes": layout.length(min_frames + more)}
    rows = walk(grammar_of(layout, **limits), FIRST + layout.size, 3, random)
    assert len(rows) == 3
    for row in rows:
        (segment,) = segments_of(row)
        codes = vocabulary_of(layout).token_ids_to_codebooks(segment)
        assert min_frames <= codes.shape[1] <= min_frames + more


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_limits_that_leave_no_whole_frame_are_refused(layout):
    with pytest.raises(ValueError, match="no whole frame"):
        grammar_of(layout, max_codes=layout.length(1) - 1)


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 4), st.integers(0, 6))
def test_turns_speak_in_whole_frames(random, min_frames, more):
    layout = CodeLayout((5, 3))
    vocabulary = vocabulary_of(layout)
    turns = [[[1, 2], [3]], [[4], [5]]]
    limits = {"min_codes": layout.length(min_frames), "max_codes": layout.length(min_frames + more)}
    grammar = TurnsLogitsProcessor(vocabulary, turns, eos_token_ids=[EOS], prompt_length=0, **limits)
    rows = walk(grammar, FIRST + layout.size, 2, random)
    assert len(rows) == 2
    for row in rows:
        frames = [vocabulary.token_ids_to_codebooks(segment).shape[1] for segment in segments_of(row)]
        assert sum(frames) <= min_frames + more
        assert len(frames) < 2 or sum(frames) >= min_frames


def test_turns_of_delayed_rows_are_refused():
    with pytest.raises(ValueError, match="turns would need the pads of a delayed row"):
        TurnsLogitsProcessor(vocabulary_of(LAYOUTS[1]), [[[1]]], eos_token_ids=[EOS], prompt_length=0)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("sampling", [None, SamplingSettings(repetition_window=3)])
def test_the_rules_travel_to_another_program(layout, sampling):
    plan = AnswerPlan(frozenset({"audio"}), 300, (EOS,), 1, layout.length(6), sampling=sampling, seed=1)
    vocabulary, num_tokens = vocabulary_of(layout), FIRST + layout.size
    rules = rules_from_text(rules_as_text(plan, vocabulary, num_tokens), [1, 2])
    generator = torch.Generator().manual_seed(0)
    chosen = []
    while not rules.is_over:
        chosen.append(rules.choose(torch.randn(num_tokens, generator=generator)))
    assert chosen[-1] == EOS
    (segment,) = segments_of(chosen[:-1])
    assert 1 <= vocabulary.token_ids_to_codebooks(segment).shape[1] <= 6


def test_one_codebook_says_nothing_of_layouts_to_the_other_program():
    plan, vocabulary = AnswerPlan(frozenset({"text"}), 3, (EOS,)), AudioVocabulary(8, 12, 10, 11)
    assert "layout" not in rules_as_text(plan, vocabulary, 20)


def test_a_prompt_that_ends_within_a_frame_goes_on_there():
    layout = CodeLayout((5, 3), "delay")
    grammar, pad = grammar_of(layout), FIRST + layout.size - 1
    # a0 · a1 | b0 comes; a0 · · | the last frame's b0 comes; then the end.
    prompts = [[START, FIRST, pad, FIRST + 1], [START, FIRST, pad, pad]]
    allowed = grammar(torch.tensor(prompts), torch.zeros(2, 30)).isfinite()
    assert [set(row.nonzero()[:, 0].tolist()) for row in allowed] == [set(range(FIRST + 5, FIRST + 8))] * 2
    whole = torch.tensor([[START, FIRST, pad, pad, FIRST + 5]])
    assert grammar(whole, torch.zeros(1, 30)).isfinite().nonzero()[:, 1].tolist() == [END]
