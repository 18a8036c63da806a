"""What bounds a speed: operations are counted wherever they happen, and rates are there for every format."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from audiollm.benchmarks.speed.flops import count_flops, counted
from audiollm.benchmarks.speed.timing import machine_facts
from audiollm.tokenizer.int8 import Int8Linear
from audiollm.tokenizer.linear import Linear
from audiollm.tokenizer.rates import DEVICE_FORMATS, square_product_rate


@torch.inference_mode()
def test_linear_layers_count_the_same_in_every_kernel() -> None:
    layer, rows = Linear(64, 96), torch.randn(2, 5, 64)
    rounded = Int8Linear(layer)
    expected = 2 * 10 * 64 * 96
    assert count_flops(lambda: layer(rows)) == expected
    assert count_flops(lambda: F.linear(rows, layer.weight, layer.bias)) == expected
    assert count_flops(lambda: rounded(rows)) == expected


@torch.inference_mode()
def test_attention_and_convolutions_count() -> None:
    query, key = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    products = 2 * (2 * 2 * 3 * 5 * 7 * 8)  # scores, and their sums of values
    assert count_flops(lambda: F.scaled_dot_product_attention(query, key, key)) == products
    assert count_flops(lambda: F.conv1d(torch.randn(1, 4, 10), torch.randn(6, 4, 3))) == 2 * 8 * 4 * 6 * 3


def test_what_is_counted_is_returned_too() -> None:
    rows = torch.randn(3, 4)
    result, operations = counted(lambda: rows @ rows.T)
    assert torch.equal(result, rows @ rows.T)
    assert operations == 2 * 3 * 4 * 3


@pytest.mark.parametrize("number_format", DEVICE_FORMATS)
def test_every_format_of_a_device_has_a_rate(number_format: str) -> None:
    before = torch.get_float32_matmul_precision()
    assert square_product_rate(number_format, torch.device("cpu"), size=32) > 0
    assert torch.get_float32_matmul_precision() == before


def test_a_format_that_no_device_has_is_refused() -> None:
    with pytest.raises(ValueError, match="number format 'int4': use one of float32, tf32"):
        square_product_rate("int4", torch.device("cpu"), size=32)


def test_a_machine_says_what_it_is_and_how_fast_it_multiplies() -> None:
    facts = machine_facts(more=1)
    assert {"processor", "instructions", "BLAS", "threads", "torch", "more"} <= set(facts)
    assert {"float32", "float32 (BLAS)", "bfloat16"} <= set(facts["gflops"])
    assert all(rate > 0 for rate in facts["gflops"].values())
