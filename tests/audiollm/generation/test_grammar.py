"""Whatever the model wants, what comes out keeps to the grammar."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList

from audiollm.generation.grammar import AudioSegmentLogitsProcessor, ends_inside_audio, segment_limits
from audiollm.processing import AudioLLMProcessor
from audiollm.vocabulary import AudioVocabulary, extend

# 10 text ids (9 ends a turn), start 10, end 11, codes 12 to 19, and padding rows 20 to 23.
VOCABULARY = AudioVocabulary(codebook_size=8, first_code_id=12, start_id=10, end_id=11)
NUM_TOKENS, WIDTH, EOS = 20, 24, 9
START, END = 10, 11
TEXT, CODES = set(range(10)), set(range(12, 20))


def grammar(modalities, prompt_length=0, min_codes=1, max_codes=None):
    return AudioSegmentLogitsProcessor(
        VOCABULARY,
        modalities,
        num_tokens=NUM_TOKENS,
        eos_token_ids=[EOS],
        prompt_length=prompt_length,
        min_codes=min_codes,
        max_codes=max_codes,
    )


def allowed_by(processor, rows):
    scores = processor(torch.tensor(rows), torch.zeros(len(rows), WIDTH))
    return [set(row.isfinite().nonzero()[:, 0].tolist()) for row in scores]


def expected(prefix, modalities, prompt_length, min_codes, max_codes):
    """The grammar again, token by token, in the plainest words."""
    inside, num_codes, has_answered = False, 0, False
    for place, token_id in enumerate(prefix):
        if token_id == START:
            inside, num_codes = True, 0
        elif token_id == END:
            inside = False
            has_answered = has_answered or place >= prompt_length
        else:
            num_codes += 1
    if modalities == {"text"}:
        return TEXT
    if inside:
        if max_codes is not None and num_codes >= max_codes:
            return {END}
        return CODES | ({END} if num_codes >= min_codes else set())
    if modalities == {"audio"}:
        return {EOS} if has_answered else {START}
    return TEXT | {START}


@settings(max_examples=300, deadline=None)
@given(
    rows=st.integers(1, 12).flatmap(
        lambda length: st.lists(
            st.lists(st.integers(0, NUM_TOKENS - 1), min_size=length, max_size=length), min_size=1, max_size=3
        )
    ),
    modalities=st.sampled_from([{"text"}, {"audio"}, {"text", "audio"}]),
    limits=st.tuples(st.integers(1, 3), st.none() | st.integers(3, 5)),
    data=st.data(),
)
def test_the_masks_equal_the_grammar_read_token_by_token(rows, modalities, limits, data):
    prompt_length = data.draw(st.integers(0, len(rows[0])))
    processor = grammar(modalities, prompt_length, *limits)
    assert allowed_by(processor, rows) == [expected(row, modalities, prompt_length, *limits) for row in rows]


def test_an_answer_may_begin_at_once_and_scores_keep_their_values():
    assert allowed_by(grammar({"audio"}), torch.zeros(2, 0, dtype=torch.long).tolist()) == [{START}, {START}]
    scores = torch.randn(1, WIDTH)
    masked = grammar({"text", "audio"})(torch.tensor([[1, START, 12]]), scores)
    kept = masked.isfinite()
    assert torch.equal(masked[kept], scores[kept])
    assert scores.isfinite().all()  # the given logits are not written to


def test_some_token_is_always_allowed_so_that_no_distribution_is_empty():
    for modalities in ({"text"}, {"audio"}, {"text", "audio"}):
        for prefix in ([1], [START], [START, 12, 12, 12], [START, 12, END], [END], [13]):
            assert all(allowed_by(grammar(modalities, 0, 1, 2), [prefix]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modalities": {"video"}}, "use {'text'}"),
        ({"modalities": set()}, "use {'text'}"),
        ({"modalities": {"audio"}, "min_codes": 0}, "min_codes=0"),
        ({"modalities": {"audio"}, "min_codes": 5, "max_codes": 4}, "max_codes=4"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        grammar(**arguments)


def test_a_model_without_the_rows_is_refused():
    with pytest.raises(ValueError, match="16 logits for 20 tokens"):
        grammar({"text"})(torch.tensor([[1]]), torch.zeros(1, 16))


def test_seconds_become_codes_inwards():
    assert segment_limits(None, None, 25.0) == (1, None)
    assert segment_limits(0.5, 2.0, 25.0) == (13, 50)
    assert segment_limits(0, 0.04, 25.0) == (1, 1)
    for number in range(1, 3000):  # whatever the last bit of number * 0.04 is
        assert segment_limits(number * 0.04, number * 0.04, 25.0) == segment_limits(number / 25, number / 25, 25.0)
        assert segment_limits(number * 0.04, number / 25, 25.0) == (number, number)
    assert (segment_limits(0.28, 1.16, 25.0)) == (7, 29)
    for bad in [(2.0, 1.0), (-1.0, None), (None, 0.03)]:
        with pytest.raises(ValueError, match=r"0 <= min_seconds <= max_seconds.*0\.04 s"):
            segment_limits(*bad, 25.0)
    with pytest.raises(ValueError, match=r"no sound ends: each code lasts 0\.04 s; use max_seconds=0\.52, or .*=0\.48"):
        segment_limits(0.5, 0.5, 25.0)


# With a model


@pytest.fixture(scope="module")
def extended_llm(make_llm, make_text_tokenizer):
    text_tokenizer, llm = make_text_tokenizer(), make_llm(384, seed=1)
    vocabulary = extend(llm, text_tokenizer, 64)
    with torch.no_grad():  # a model that loves padding rows and audio in all the wrong places
        llm.get_input_embeddings().weight[vocabulary.start_id :] *= 3
        llm.get_input_embeddings().weight[len(text_tokenizer) :] *= 3
    return llm, text_tokenizer, vocabulary


def run(llm, text_tokenizer, vocabulary, modalities, rows, **options):
    prompt_length = len(rows[0])
    processor = AudioSegmentLogitsProcessor(
        vocabulary,
        modalities,
        num_tokens=len(text_tokenizer),
        eos_token_ids=[text_tokenizer.eos_token_id],
        prompt_length=prompt_length,
        min_codes=2,
        max_codes=6,
    )
    ids = torch.tensor(rows)
    pad = text_tokenizer.pad_token_id
    out = llm.generate(
        input_ids=ids,
        attention_mask=(ids != pad).long(),
        logits_processor=LogitsProcessorList([processor]),
        max_new_tokens=24,
        pad_token_id=pad,
        **options,
    )
    return out[:, prompt_length:].tolist()


@pytest.mark.parametrize("options", [{"do_sample": True}, {"num_beams": 3, "do_sample": False}, {"do_sample": False}])
@pytest.mark.parametrize("modalities", [{"text"}, {"audio"}, {"text", "audio"}])
def test_generated_rows_parse_whatever_the_search(extended_llm, modalities, options):
    llm, text_tokenizer, vocabulary = extended_llm
    torch.manual_seed(0)
    prompt = text_tokenizer("Say it:")["input_ids"]
    pad, eos = text_tokenizer.pad_token_id, text_tokenizer.eos_token_id
    rows = [prompt, [pad] * (len(prompt) - 1) + prompt[:1]]
    processor = AudioLLMProcessor(text_tokenizer)
    num_segments = 0
    for ids in run(llm, text_tokenizer, vocabulary, modalities, rows, **options):
        assert max(ids) < len(text_tokenizer)
        answer = ids[: ids.index(eos)] if eos in ids else ids
        if modalities == {"audio"}:
            assert answer[0] == vocabulary.start_id
            assert answer[-1] == vocabulary.end_id  # the limit of 6 codes is below that of 24 tokens
            assert 4 <= len(answer) <= 8
        segments = processor.split(answer)
        audio = [segment for segment in segments if hasattr(segment, "codes")]
        num_segments += len(audio)
        for number, segment in enumerate(audio):
            is_last = number == len(audio) - 1 and segments[-1] is segment
            assert segment.well_formed or (is_last and segment.problems[0] == "unclosed")
            assert len(segment.codes) <= 6
            assert len(segment.codes) >= 2 or not segment.well_formed
    if "text" not in modalities or options["do_sample"]:  # greedy, this model may prefer to stay silent
        assert (num_segments > 0) == ("audio" in modalities)


def test_an_open_segment_is_seen_at_the_end_of_a_prompt():
    rows = torch.tensor([[1, START, 12], [START, 12, END], [1, 2, 3], [END, START, 13]])
    assert ends_inside_audio(rows, VOCABULARY).tolist() == [True, False, False, True]
