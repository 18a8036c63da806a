"""Padding examples to a batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiollm.data.collation import IGNORED_LABEL, collate

PAD = 7

examples = st.lists(
    st.lists(st.tuples(st.integers(0, 2**40), st.integers(-100, 2**40)), min_size=1, max_size=20),
    min_size=1,
    max_size=5,
).map(lambda rows: [{"input_ids": [i for i, _ in row], "labels": [label for _, label in row]} for row in rows])


@given(examples, st.sampled_from(["left", "right"]), st.integers(1, 16))
def test_padding_can_be_taken_off_again(examples, padding_side, multiple_of):
    batch = collate(examples, pad_token_id=PAD, padding_side=padding_side, multiple_of=multiple_of)
    longest = max(len(example["input_ids"]) for example in examples)
    num_rows, length = batch["input_ids"].shape
    assert num_rows == len(examples)
    assert longest <= length < longest + multiple_of
    assert length % multiple_of == 0
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    for row, example in enumerate(examples):
        mask = batch["attention_mask"][row].bool()
        assert batch["input_ids"][row][mask].tolist() == example["input_ids"]
        assert batch["labels"][row][mask].tolist() == example["labels"]
        assert set(batch["input_ids"][row][~mask].tolist()) <= {PAD}
        assert set(batch["labels"][row][~mask].tolist()) <= {IGNORED_LABEL}
        edge = 0 if padding_side == "right" else -1
        assert mask[edge]  # the padding is on the other side


def test_tensors_are_accepted_and_labels_may_be_absent():
    batch = collate([{"input_ids": torch.tensor([1, 2])}, {"input_ids": [3]}], pad_token_id=0, padding_side="left")
    assert batch["input_ids"].tolist() == [[1, 2], [0, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1], [0, 1]]
    assert "labels" not in batch


@pytest.mark.parametrize(
    ("examples", "options", "message"),
    [
        ([], {}, "batch is empty"),
        ([{"input_ids": []}], {}, r"examples\[0\] has no token ids"),
        ([{"input_ids": [1], "labels": [1]}, {"input_ids": [1, 2], "labels": [1]}], {}, r"\[1\] has 2 token ids but 1"),
        ([{"input_ids": [1], "labels": [1]}, {"input_ids": [1]}], {}, r"examples\[1\] has no labels"),
        ([{"input_ids": [1]}, {"input_ids": [1], "labels": [1]}], {}, r"examples\[0\] has no labels"),
        ([{"input_ids": [1]}], {"padding_side": "middle"}, r"padding_side='middle'.*right.*left"),
        ([{"input_ids": [1]}], {"multiple_of": 0}, "multiple_of=0"),
    ],
)
def test_what_cannot_be_a_batch_is_refused(examples, options, message):
    with pytest.raises(ValueError, match=message):
        collate(examples, pad_token_id=0, **options)
