"""Codes and token ids are inverses, text rows keep their bits, new rows look like text rows, and misuse is refused."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from audiollm.tokenizer.layout import CodeLayout
from audiollm.vocabulary import AudioVocabulary, extend

VOCABULARY = AudioVocabulary(codebook_size=64, first_code_id=102, start_id=100, end_id=101)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# Codes and token ids


@given(st.lists(st.integers(0, 63), max_size=40))
def test_codes_and_token_ids_are_inverses(codes):
    token_ids = VOCABULARY.codes_to_token_ids(codes)
    assert VOCABULARY.token_ids_to_codes(token_ids) == codes
    assert VOCABULARY.wrap(codes) == [100, *token_ids, 101]
    as_tensor = torch.tensor(codes, dtype=torch.int32)
    assert VOCABULARY.codes_to_token_ids(as_tensor).tolist() == token_ids
    assert VOCABULARY.wrap(as_tensor).tolist() == [100, *token_ids, 101]
    assert VOCABULARY.is_code(torch.tensor(token_ids, dtype=torch.long)).all()


def test_no_two_codes_share_an_id_and_none_is_a_mark():
    token_ids = VOCABULARY.codes_to_token_ids(list(range(64)))
    assert len({*token_ids, 100, 101}) == 66
    assert VOCABULARY.token_ids == sorted([*token_ids, 100, 101])
    assert VOCABULARY.is_code(torch.tensor([99, 100, 101, 102, 165, 166])).tolist() == [False] * 3 + [True] * 2 + [
        False
    ]
    assert VOCABULARY.is_audio(torch.tensor([99, 100, 101, 102, 165, 166])).tolist() == [False] + [True] * 4 + [False]


@pytest.mark.parametrize("code", [-1, 64, 8192])
def test_a_code_out_of_range_is_named_with_the_range(code):
    for codes in ([3, code], torch.tensor([[3], [code]])):
        with pytest.raises(ValueError, match=rf"code {code} is outside \[0, 64\)"):
            VOCABULARY.codes_to_token_ids(codes)


@pytest.mark.parametrize("token_id", [-100, 99, 100, 101, 166])
def test_a_token_id_that_is_no_code_is_named(token_id):
    with pytest.raises(ValueError, match=rf"token id {token_id} is no code: codes are ids 102 to 165"):
        VOCABULARY.token_ids_to_codes(torch.tensor([103, token_id]))


def test_float_codes_and_batches_are_refused():
    with pytest.raises(ValueError, match="must be integers"):
        VOCABULARY.codes_to_token_ids(torch.tensor([1.0]))
    with pytest.raises(ValueError, match=r"\(1, 2\).*one clip"):
        VOCABULARY.wrap(torch.tensor([[1, 2]]))


@pytest.mark.parametrize(
    ("size", "first", "start", "end"), [(0, 2, 0, 1), (4, 2, 1, 1), (4, 2, 3, 1), (4, 2, 0, 5), (4, -1, 8, 9)]
)
def test_an_impossible_layout_is_refused(size, first, start, end):
    with pytest.raises(ValueError, match="at least"):
        AudioVocabulary(size, first, start, end)


# Extension


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("spare", [0, 64, 700])
def test_extension_keeps_text_rows_and_fills_every_new_one(text_tokenizer, make_llm, family, tie, spare):
    num_text = len(text_tokenizer)
    model = make_llm(num_text + spare, tie, family)
    with torch.no_grad():  # spare rows of real checkpoints are untrained: all equal, or zero
        model.get_input_embeddings().weight[num_text:] = 0
        model.get_output_embeddings().weight[num_text:] = 0
    before = state(model)
    random_state = torch.get_rng_state()

    vocabulary = extend(model, text_tokenizer, 64)

    assert vocabulary == AudioVocabulary(64, num_text + 2, num_text, num_text + 1)
    assert torch.equal(torch.get_rng_state(), random_state)
    rows = model.config.vocab_size
    assert rows % 128 == 0
    assert len(text_tokenizer) <= rows
    assert rows >= num_text + spare
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tie
    for name, tensor in model.state_dict().items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert tensor.shape == (rows, 32)
            assert torch.equal(tensor[:num_text], before[name][:num_text])
            new = tensor[num_text:]
            assert new.isfinite().all()
            assert new.norm(dim=1).min() > 0.5 * tensor[:num_text].norm(dim=1).min()
            assert len(new.unique(dim=0)) == len(new)
        else:
            assert torch.equal(tensor, before[name])
    assert model(torch.tensor([vocabulary.wrap([0, 63])])).logits.shape == (1, 4, rows)


def test_new_rows_have_the_mean_and_spread_of_the_text_rows(text_tokenizer, make_llm):
    model = make_llm(len(text_tokenizer), tie=False)
    with torch.no_grad():
        scale = torch.linspace(0.1, 3.0, 32)
        model.get_input_embeddings().weight.mul_(scale * 50).add_(scale)
        model.get_output_embeddings().weight.mul_(10).sub_(1)
    num_text = len(text_tokenizer)
    extend(model, text_tokenizer, 4096)
    for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        old, new = table[:num_text].detach(), table[num_text:].detach()
        torch.testing.assert_close(new.std(0), old.std(0), rtol=0.06, atol=0)
        assert ((new.mean(0) - old.mean(0)).abs() < 0.08 * old.std(0)).all()


def test_codebook_rows_keep_the_codebooks_neighbourhoods_and_the_text_rows_scale(text_tokenizer, make_llm):
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(16, 24, generator=generator) * 3
    codebook = centres.repeat_interleave(4, dim=0) + 0.1 * torch.randn(64, 24, generator=generator)  # 16 tight groups
    num_text = len(text_tokenizer)
    model = make_llm(num_text, tie=True)
    vocabulary = extend(model, text_tokenizer, 64, init="codebook", codebook=codebook.to(torch.bfloat16))
    table = model.get_input_embeddings().weight.detach()
    rows = table[vocabulary.first_code_id : vocabulary.first_code_id + 64]
    distances = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
    assert (distances.argmin(dim=1) // 4 == torch.arange(64) // 4).all()
    torch.testing.assert_close(rows.std(0, correction=0), table[:num_text].std(0, correction=0), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(rows.mean(0), table[:num_text].mean(0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("init", ["text", "codebook"])
def test_the_seed_alone_decides_the_new_rows(text_tokenizer, make_llm, init):
    codebook = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) if init == "codebook" else None
    tables = []
    for seed in (0, 0, 1):
        model = make_llm(len(text_tokenizer))
        torch.manual_seed(seed + len(tables))
        extend(model, copy.deepcopy(text_tokenizer), 64, init=init, codebook=codebook, seed=seed)
        tables.append(model.get_input_embeddings().weight.detach())
    assert torch.equal(tables[0], tables[1])
    assert not torch.allclose(tables[0], tables[2])


def test_a_bf16_table_keeps_its_bits_and_gets_bf16_rows_from_float32_statistics(text_tokenizer, make_llm):
    num_text = len(text_tokenizer)
    model, reference = make_llm(num_text).bfloat16(), make_llm(num_text).bfloat16().float()
    before = model.get_input_embeddings().weight.detach().clone()
    extend(model, copy.deepcopy(text_tokenizer), 64)
    extend(reference, text_tokenizer, 64)
    table = model.get_input_embeddings().weight.detach()
    assert table.dtype == torch.bfloat16
    assert torch.equal(table[:num_text], before)
    assert torch.equal(table, reference.get_input_embeddings().weight.detach().bfloat16())


def test_an_output_bias_is_extended_with_the_mean_text_bias(text_tokenizer, make_llm):
    num_text = len(text_tokenizer)
    model = make_llm(num_text, tie=False)
    head = nn.Linear(32, num_text, bias=True)
    head.weight.data.copy_(model.lm_head.weight.data)
    head.bias.data.copy_(torch.linspace(-1, 3, num_text))
    bias = head.bias.detach().clone()
    model.set_output_embeddings(head)
    extend(model, text_tokenizer, 64)
    extended = model.get_output_embeddings().bias.detach()
    assert torch.equal(extended[:num_text], bias)
    torch.testing.assert_close(extended[num_text:], torch.full((len(extended) - num_text,), 1.0))


def test_extending_again_changes_nothing_also_after_saving_and_loading(text_tokenizer, make_llm, tmp_path):
    model = make_llm(len(text_tokenizer) + 300)
    vocabulary = extend(model, text_tokenizer, 64)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.5)  # "training"
    before, entries = state(model), len(text_tokenizer)
    assert extend(model, text_tokenizer, 64, seed=9) == vocabulary
    assert len(text_tokenizer) == entries
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    model.save_pretrained(tmp_path)
    text_tokenizer.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert extend(again, AutoTokenizer.from_pretrained(tmp_path), 64, seed=9) == vocabulary
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.state_dict().items())


def test_an_extended_tokenizer_serves_a_fresh_model(text_tokenizer, make_llm):
    first, second = make_llm(len(text_tokenizer) + 300), make_llm(len(text_tokenizer) + 300)
    vocabulary = extend(first, text_tokenizer, 64)
    assert extend(second, text_tokenizer, 64) == vocabulary
    assert torch.equal(first.get_input_embeddings().weight, second.get_input_embeddings().weight)


def test_turn_tokens_are_added_for_a_tokenizer_without_chatml(text_tokenizer, make_llm):
    specification = json.loads(text_tokenizer.backend_tokenizer.to_str())
    plain = copy.deepcopy(text_tokenizer)
    specification["added_tokens"] = specification["added_tokens"][:1]
    plain._tokenizer = type(plain.backend_tokenizer).from_str(json.dumps(specification))
    num_text = len(plain)
    assert num_text == 301
    vocabulary = extend(make_llm(num_text), plain, 64, turn_tokens=True)
    assert plain.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [num_text, num_text + 1]
    assert vocabulary.start_id == num_text + 2


def test_generation_stops_at_the_turn_end_and_pads(text_tokenizer, make_llm):
    model = make_llm(len(text_tokenizer))
    model.generation_config.eos_token_id = 7
    extend(model, text_tokenizer, 64)
    turn_end = text_tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.generation_config.eos_token_id == [7, turn_end]
    assert model.generation_config.pad_token_id == text_tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_the_saved_folder_is_a_plain_qwen2_checkpoint(text_tokenizer, make_llm, tmp_path):
    model = make_llm(len(text_tokenizer), tie=False)
    extend(model, text_tokenizer, 64)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert config["model_type"] == "qwen2"
    assert "auto_map" not in config
    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert weights.get_slice(name).get_shape() == [config["vocab_size"], 32]


# Refusals


def add(text_tokenizer, *tokens):
    text_tokenizer.add_tokens(list(tokens), special_tokens=True)


def test_another_size_is_refused_and_both_sizes_are_named(text_tokenizer, make_llm):
    extend(make_llm(), text_tokenizer, 64)
    with pytest.raises(ValueError, match=r"already holds an audio vocabulary of 64 codes, not 32"):
        extend(make_llm(), text_tokenizer, 32)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["<|audio_start|>"], "part of an audio vocabulary"),
        (["<|audio_start|>", "<|audio_0|>"], "part of an audio vocabulary"),
        (["<|audio_start|>", "<|audio_end|>", "<|audio_0|>", "<|audio_2|>"], "part of an audio vocabulary"),
        (["<|audio_start|>", "<|audio_end|>", "<|audio_0|>", "other", "<|audio_1|>"], "not contiguous"),
    ],
)
def test_a_partial_or_scattered_vocabulary_is_refused_before_anything_changes(
    text_tokenizer, make_llm, tokens, message
):
    add(text_tokenizer, *tokens)
    model, entries = make_llm(), len(text_tokenizer)
    with pytest.raises(ValueError, match=message):
        extend(model, text_tokenizer, 2)
    assert len(text_tokenizer) == entries
    assert model.config.vocab_size == 384


def test_a_model_with_another_vocabulary_is_refused(text_tokenizer, make_llm):
    model = make_llm()
    extend(model, copy.deepcopy(text_tokenizer), 64)
    with pytest.raises(ValueError, match="another audio vocabulary"):
        extend(model, text_tokenizer, 32)


def test_a_tokenizer_without_audio_says_how_to_add_it(text_tokenizer):
    with pytest.raises(ValueError, match=r"no audio vocabulary: call audiollm\.extend"):
        AudioVocabulary.from_text_tokenizer(text_tokenizer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init": "zeros"}, "use 'text' or 'codebook'"),
        ({"init": "codebook"}, "needs codebook="),
        ({"init": "codebook", "codebook": torch.ones(8, 4)}, r"\(8, 4\).*codebook_size=64"),
        ({"init": "codebook", "codebook": torch.full((64, 4), torch.nan)}, "NaN"),
        ({"codebook": torch.ones(64, 4)}, "does not use it"),
        ({"codebook_size": 0}, "at least one code"),
    ],
)
def test_bad_arguments_are_refused_before_anything_changes(text_tokenizer, make_llm, arguments, message):
    entries = len(text_tokenizer)
    with pytest.raises(ValueError, match=message):
        extend(make_llm(), text_tokenizer, **{"codebook_size": 64, **arguments})
    assert len(text_tokenizer) == entries


def test_a_sharded_or_empty_model_is_refused(text_tokenizer, make_llm):
    partitioned = make_llm()
    partitioned.get_input_embeddings().weight.ds_id = 3
    with pytest.raises(ValueError, match="sharded"):
        extend(partitioned, text_tokenizer, 64)
    with pytest.raises(ValueError, match="meta device"):
        extend(make_llm().to("meta"), text_tokenizer, 64)


# The real text tokenizer


def test_the_real_qwen_tokenizer_gets_the_documented_ids_and_every_token_round_trips(
    qwen_tokenizer, make_llm, tmp_path
):
    sample = "Grüße, 你好! <tool_call> 3.14\n\n<|im_start|>user"
    sample_ids = qwen_tokenizer(sample)["input_ids"]
    model = make_llm(151936)
    text_rows = model.get_input_embeddings().weight[:151665].detach().clone()
    vocabulary = extend(model, qwen_tokenizer)
    assert vocabulary == AudioVocabulary(8192, 151667, 151665, 151666)
    assert len(qwen_tokenizer) == 159859
    assert model.config.vocab_size == 159872
    assert torch.equal(model.get_input_embeddings().weight[:151665], text_rows)
    assert model.get_input_embeddings().weight[151665:].norm(dim=1).min() > 0

    qwen_tokenizer.save_pretrained(tmp_path)
    for text_tokenizer in (qwen_tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert text_tokenizer.convert_tokens_to_ids(vocabulary.tokens) == vocabulary.token_ids
        assert text_tokenizer("".join(vocabulary.tokens))["input_ids"] == vocabulary.token_ids
        assert text_tokenizer(vocabulary.tokens)["input_ids"] == [[token_id] for token_id in vocabulary.token_ids]
        assert text_tokenizer.decode(vocabulary.token_ids) == "".join(vocabulary.tokens)
        assert text_tokenizer(sample)["input_ids"] == sample_ids
        mixed = text_tokenizer("x<|audio_start|><|audio_7|><|audio_end|>y")["input_ids"]
        assert mixed == [*text_tokenizer("x")["input_ids"], *vocabulary.wrap([7]), *text_tokenizer("y")["input_ids"]]
        assert text_tokenizer.decode(mixed, skip_special_tokens=True) == "xy"
        assert AudioVocabulary.from_text_tokenizer(text_tokenizer, 8192) == vocabulary


@pytest.mark.parametrize("value", [10**30, -(10**30), 2**63])
def test_numbers_beyond_all_integers_are_named(value):
    vocabulary = AudioVocabulary(8, 10, 8, 9)
    for method in (vocabulary.codes_to_token_ids, vocabulary.token_ids_to_codes):
        with pytest.raises(ValueError, match=str(value)):
            method([1, value])


# Several codebooks


@st.composite
def vocabularies_and_codes(draw):
    sizes = tuple(draw(st.lists(st.integers(1, 20), min_size=2, max_size=8)))
    layout = CodeLayout(sizes, draw(st.sampled_from(["flat", "delay"])))
    num_frames = draw(st.integers(1, 6))
    codes = [draw(st.lists(st.integers(0, size - 1), min_size=num_frames, max_size=num_frames)) for size in sizes]
    return AudioVocabulary(layout.size, 102, 100, 101, layout), torch.tensor(codes)


@given(vocabularies_and_codes())
def test_codes_of_all_codebooks_and_token_ids_are_inverses(vocabulary_and_codes):
    vocabulary, codes = vocabulary_and_codes
    token_ids = vocabulary.codes_to_token_ids(codes)
    assert vocabulary.token_ids_to_codebooks(token_ids).equal(codes)
    assert vocabulary.codes_to_token_ids(codes.tolist()) == token_ids.tolist()
    symbols = vocabulary.token_ids_to_codes(token_ids)
    assert vocabulary.codes_to_token_ids(symbols).equal(token_ids)
    assert vocabulary.is_code(token_ids).all()
    assert vocabulary.wrap(codes).tolist() == [100, *token_ids.tolist(), 101]


@given(vocabularies_and_codes(), st.data())
def test_a_code_outside_of_its_codebook_is_named(vocabulary_and_codes, data):
    vocabulary, codes = vocabulary_and_codes
    codebook = data.draw(st.integers(0, len(codes) - 1))
    frame = data.draw(st.integers(0, codes.shape[1] - 1))
    codes[codebook, frame] = vocabulary.layout.codebook_sizes[codebook]
    with pytest.raises(ValueError, match=rf"of codebook {codebook}, frame {frame}, is outside"):
        vocabulary.codes_to_token_ids(codes)
    with pytest.raises(ValueError, match=r"\[1, \d+\], but the layout has \d codebooks"):
        vocabulary.codes_to_token_ids(codes[:1])


@given(vocabularies_and_codes())
def test_a_vocabulary_travels_as_plain_data(vocabulary_and_codes):
    for vocabulary in (vocabulary_and_codes[0], VOCABULARY):
        assert AudioVocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary
    assert VOCABULARY.to_dict() == {"codebook_size": 64, "first_code_id": 102, "start_id": 100, "end_id": 101}


def test_an_llm_of_another_layout_is_not_extended_again(text_tokenizer, make_llm):
    model, layout = make_llm(), CodeLayout((4, 4))
    extend(model, text_tokenizer, 8, layout=layout)
    assert extend(model, text_tokenizer, 8, layout=layout).layout == layout
    for other in (None, CodeLayout((2, 6)), CodeLayout((2, 2, 2, 2))):
        with pytest.raises(ValueError, match="extended by another audio vocabulary"):
            extend(model, text_tokenizer, 8, layout=other)
    with pytest.raises(ValueError, match=r"codebook_size=8, but the layout \(2 x 4 codes, delay\) has 9 symbols"):
        extend(make_llm(), text_tokenizer, 8, layout=CodeLayout((4, 4), "delay"))


def test_several_codebooks_are_no_clip_of_one():
    with pytest.raises(ValueError, match="one of a single codebook"):
        VOCABULARY.codes_to_token_ids([[1, 2], [3, 4]])
