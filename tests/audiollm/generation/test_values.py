"""Values that a setting of generation cannot have are one error that names it; none of them is taken in silence."""

from __future__ import annotations

import pytest
import torch

CHAT = [{"role": "user", "content": "The quick brown fox?"}]
NO_NUMBERS = ("x", [], {}, float("nan"), float("inf"), True)
WRONG = {
    **dict.fromkeys(("max_new_tokens", "num_beams"), (*NO_NUMBERS, 0, -1, 1.5, 2.0)),
    **dict.fromkeys(("num_return_sequences", "prompt_lookup_num_tokens", "prefill_chunk_size"), ("2", 0, -1, 1.5)),
    **dict.fromkeys(("min_new_tokens", "no_repeat_ngram_size", "min_length"), ("x", -1, 1.5, True)),
    **dict.fromkeys(("max_time", "repetition_penalty"), (*NO_NUMBERS, 0, -1.0)),
    **dict.fromkeys(("temperature", "top_p"), (*NO_NUMBERS, 0, -1)),
    **dict.fromkeys(("top_k", "repetition_window"), ("x", -1, 2.5, True, float("nan"))),
    **dict.fromkeys(("min_p", "typical_p", "guidance_scale"), ("x", [], float("nan"))),
    **dict.fromkeys(("do_sample", "use_cache", "remove_invalid_values", "return_waveforms"), ("no", 2, [], 0.5)),
    "seed": ("x", 1.5, 2**70, True, 3),  # 3: nothing is drawn
    "early_stopping": ("no", 3),
    "stop_strings": ("", [], [""], [3], 3),
    "exponential_decay_length_penalty": (3, (1,), (1, "x"), (-1, 2.0)),
    **dict.fromkeys(("logits_processor", "stopping_criteria"), (3, [3], "x")),
    "prefix_allowed_tokens_fn": (3,),
    "streamer": (3, "x"),
    **dict.fromkeys(("eos_token_id", "pad_token_id", "forced_eos_token_id"), ("x", -5, 10**9, 1.5, [])),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"), ("x", [-5], [10**9], [1.5], [])),
    "bad_words_ids": ([[10**9]], [], [[]], "x"),
    **dict.fromkeys(("labels", "position_ids", "past_key_values", "inputs_embeds"), (torch.zeros(1, 3), 3)),
    **dict.fromkeys(("logits_to_keep", "output_router_logits", "cache_position", "made_up", "max_tokens"), (1,)),
}


@pytest.mark.parametrize(
    ("name", "value"), [pytest.param(n, v, id=f"{n}-{i}") for n, vs in WRONG.items() for i, v in enumerate(vs)]
)
def test_a_value_that_a_setting_cannot_have_is_one_error_that_names_it(speaking_llm, name, value):
    with pytest.raises(ValueError, match=name):
        speaking_llm.chat(CHAT, **{name: value})


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", True])
@pytest.mark.parametrize("name", ["max_seconds", "min_seconds"])
def test_seconds_are_finite_numbers(speaking_llm, name, value):
    if (name, value) == ("min_seconds", 0) and value is not False:
        return
    with pytest.raises(ValueError, match=name):
        speaking_llm.chat(CHAT, modalities=["audio"], **{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_new_tokens": 5, "max_new_tokens": 2}, "min_new_tokens=5 is more than max_new_tokens=2"),
        ({"prompt_lookup_num_tokens": 2, "num_beams": 2}, "ignored in beam search"),
        ({"tokenizer": object()}, "tokenizer serves.*stop_strings"),
        ({"seed": 1}, "seed=1 has no effect"),
    ],
    ids=range(4),
)
def test_settings_that_contradict_each_other_are_named(speaking_llm, options, message):
    with pytest.raises(ValueError, match=message):
        speaking_llm.chat(CHAT, **options)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ nope.x }}", "nope"),
        ("{% if %}", "template fails"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ 1 + 'x' }}", "template fails"),
        ("{{ 1 / 0 }}", "template fails"),
        ("{{ messages[99].content.x }}", "template fails"),
        ("{{ ''.__class__.__mro__ }}", "template fails"),
        ({"a": "b"}, "chat_template is dict"),
    ],
    ids=range(8),
)
def test_a_template_that_fails_is_one_error_that_names_the_conversation(speaking_llm, template, message):
    with pytest.raises(ValueError, match=message) as error:
        speaking_llm.processor.apply_chat_template(CHAT, chat_template=template)
    assert isinstance(template, dict) or "conversation" in str(error.value)


@pytest.mark.parametrize(
    "options",
    [{"max_length": 2}, {"return_assistant_tokens_mask": True}],
    ids=["max_length", "return_assistant_tokens_mask"],
)
def test_what_concerns_tokens_is_refused_where_none_are_made(speaking_llm, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        speaking_llm.processor.apply_chat_template(CHAT, tokenize=False, **options)


@pytest.mark.parametrize("max_length", [0, -1, True, 2.5, "5"])
def test_lengths_are_whole_numbers(speaking_llm, max_length):
    with pytest.raises(ValueError, match="max_length"):
        speaking_llm.processor("hi", max_length=max_length)
