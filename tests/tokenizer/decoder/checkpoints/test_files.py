"""Decoder checkpoints: both layouts, both sets of names, and bad files."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiollm.tokenizer import UniAudioTokenizer
from audiollm.tokenizer.decoder.model import WaveformDecoder, convert_decoder, read_decoder

FIXTURES = Path(__file__).parents[3] / "fixtures" / "parity" / "decoder"
CODES = torch.tensor([[3, 60, 17, 17, 0, 42]])


def tensors_of(name: str) -> dict[str, Tensor]:
    return dict(torch.load(FIXTURES / name, weights_only=True))


def sound(source: WaveformDecoder | UniAudioTokenizer) -> Tensor:
    (waveform,) = source.decode(CODES, steps=2)
    return waveform


def sounds_as(source: WaveformDecoder | UniAudioTokenizer, expected: Tensor) -> bool:
    """Up to rounding: where a tensor lies in memory decides how convolutions add up."""
    return torch.allclose(sound(source), expected, atol=1e-4, rtol=0)


# --------------------------------------------------------------------- layouts


def test_every_tensor_of_the_release_is_loaded_as_it_is(released: Path) -> None:
    state = read_decoder(released).state_dict()
    originals = {f"flow.{name}": tensor for name, tensor in tensors_of("flow.pt").items()}
    originals |= {f"vocoder.{name}": tensor for name, tensor in tensors_of("hift.pt").items()}
    assert state.keys() == originals.keys()
    for name, tensor in originals.items():
        assert torch.equal(state[name], tensor), name


def their_name(name: str) -> str:
    for ours, theirs in (("source.", "m_source."), ("pre_conv.", "conv_pre."), ("post_conv.", "conv_post.")):
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    return name.replace(".conv1.", ".convs1.").replace(".conv2.", ".convs2.")


@pytest.mark.parametrize("prefix", ["", "generator."])
def test_vocoders_of_other_families_are_loaded(released: Path, expected: Tensor, prefix: str) -> None:
    renamed = {prefix + their_name(name): tensor for name, tensor in tensors_of("hift.pt").items()}
    assert renamed.keys() & tensors_of("hift.pt").keys() != tensors_of("hift.pt").keys()
    torch.save(renamed | {"epoch": 3, "step": 1000}, released / "hift.pt")
    assert sounds_as(WaveformDecoder.from_pretrained(released), expected)


def test_safetensors_in_place_of_pickles(released: Path, expected: Tensor) -> None:
    for name in ("flow", "hift"):
        save_file(tensors_of(f"{name}.pt"), released / f"{name}.safetensors")
        (released / f"{name}.pt").unlink()
    assert sounds_as(WaveformDecoder.from_pretrained(released), expected)


def test_convert_changes_the_files_and_not_the_sound(released: Path, tmp_path: Path, expected: Tensor) -> None:
    output = convert_decoder(released.parent, tmp_path / "converted")
    assert sorted(path.name for path in output.iterdir()) == ["config.json", "model.safetensors"]
    assert sounds_as(WaveformDecoder.from_pretrained(output), expected)
    written = load_file(output / "model.safetensors")
    for name, tensor in read_decoder(released).state_dict().items():
        assert torch.equal(written[name], tensor), name
    again = convert_decoder(output, tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (again / name).read_bytes() == (output / name).read_bytes()


def test_save_keeps_the_safe_form(released: Path, tmp_path: Path, expected: Tensor) -> None:
    decoder = WaveformDecoder.from_pretrained(released)
    for _ in range(2):  # folding and unfolding the weights adds up to nothing
        decoder.save_pretrained(tmp_path / "saved")
        decoder = WaveformDecoder.from_pretrained(tmp_path / "saved")
        assert sounds_as(decoder, expected)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"] == "waveform_decoder"


def test_the_fingerprint_follows_what_decides_the_sound(released: Path, tmp_path: Path) -> None:
    decoder = WaveformDecoder.from_pretrained(released)
    fingerprint = decoder.fingerprint()
    assert fingerprint == WaveformDecoder.from_pretrained(released).fingerprint()
    config = decoder.config
    decoder.config = replace(config, flow=replace(config.flow, guidance=config.flow.guidance + 0.5))
    assert decoder.fingerprint() != fingerprint
    decoder.config = config
    assert decoder.fingerprint() == fingerprint
    with torch.no_grad():
        next(decoder.vocoder.parameters()).flatten()[0] += 1e-3
    assert decoder.fingerprint() != fingerprint


def test_another_model_is_not_overwritten(tmp_path: Path, make_tokenizer: Callable[..., UniAudioTokenizer]) -> None:
    make_tokenizer().save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="another model"):
        WaveformDecoder.from_pretrained(FIXTURES).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


# ------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.yaml", r"expected config\.yaml, flow\.pt and hift\.pt"),
        ("flow.pt", r"lacks flow\.pt or flow\.safetensors"),
        ("hift.pt", r"lacks hift\.pt or hift\.safetensors"),
    ],
)
def test_a_missing_file_is_named(released: Path, name: str, message: str) -> None:
    (released / name).unlink()
    with pytest.raises(ValueError, match=message):
        WaveformDecoder.from_pretrained(released)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.99, 0.99999])
def test_a_truncated_file_is_named(released: Path, share: float) -> None:
    path = released / "flow.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"flow\.pt is cut off or damaged"):
        WaveformDecoder.from_pretrained(released)


class Executes:
    """A pickle of it creates a file when it is loaded without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["torch", "old torch", "pickle", "inside"])
def test_a_pickle_with_code_is_refused_and_nothing_runs(released: Path, tmp_path: Path, form: str) -> None:
    target, path = tmp_path / "executed", released / "hift.pt"
    content: Any = {**tensors_of("hift.pt"), "extra": Executes(target)} if form == "inside" else Executes(target)
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form != "old torch")
    what = "a pickle of another kind may hold code" if form == "pickle" else r"it holds code.*mkdir"
    with pytest.raises(ValueError, match=rf"hift\.pt is refused: .*{what}.*none of it was run") as refused:
        WaveformDecoder.from_pretrained(released)
    assert not target.exists()
    assert "weights_only" not in str(refused.value)  # torch's own message explains how to load it all the same
    # The trap works: careless loading springs it.
    if form != "pickle":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert target.exists()


def test_yaml_that_runs_code_is_refused_and_nothing_runs(released: Path, tmp_path: Path) -> None:
    path = released / "config.yaml"
    path.write_text(f"start: !!python/object/apply:os.mkdir [{tmp_path / 'executed'}]\n{path.read_text()}")
    for load in (WaveformDecoder.from_pretrained, convert_decoder):
        with pytest.raises(ValueError, match=r"python/object/apply:os\.mkdir.*nothing was executed"):
            load(released, *([tmp_path / "output"] if load is convert_decoder else []))  # type: ignore[operator]
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("encoder_proj.bias"), r"missing: flow\.encoder_proj\.bias; unknown: none"),
        (lambda t: t.update(other=torch.zeros(2)), r"missing: none; unknown: flow\.other"),
        (
            lambda t: t.update({"encoder_proj.bias": torch.zeros(79)}),
            r"flow\.encoder_proj\.bias \[79\] instead of \[80\]",
        ),
        (lambda t: t["encoder_proj.bias"].fill_(torch.nan), r"NaN or infinity in encoder_proj\.bias"),
        (lambda t: t["encoder_proj.bias"].fill_(torch.inf), r"NaN or infinity in encoder_proj\.bias"),
        (lambda t: t.update({"encoder_proj.bias": torch.zeros(80).long()}), r"encoder_proj\.bias is torch\.int64"),
        (lambda t: t.update({"encoder_proj.bias": [0.0]}), r"'encoder_proj\.bias' is a list"),
        (lambda t: t.update({7: torch.zeros(1)}), "7 is a Tensor; only tensors by name"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    released: Path, change: Callable[[dict[Any, Any]], object], message: str
) -> None:
    tensors = tensors_of("flow.pt")
    change(tensors)
    torch.save(tensors, released / "flow.pt")
    with pytest.raises(ValueError, match=message):
        WaveformDecoder.from_pretrained(released)


@pytest.mark.parametrize("layout", ["own", "released"])
def test_what_a_header_announces_is_refused_before_it_takes_memory(
    released: Path, tmp_path: Path, layout: str, announce: Callable[[Path, str, int], None]
) -> None:
    if layout == "own":
        read_decoder(released).save_pretrained(tmp_path / "own")
        announce(tmp_path / "own" / "model.safetensors", "flow.encoder_proj.bias", 10**10)
    else:
        (released / "flow.pt").unlink()
        save_file(tensors_of("flow.pt"), released / "flow.safetensors")
        announce(released / "flow.safetensors", "encoder_proj.bias", 10**10)
    with pytest.raises(ValueError, match=r"flow\.encoder_proj\.bias \[10000000000\] instead of \[80\]"):
        WaveformDecoder.from_pretrained(tmp_path / "own" if layout == "own" else released)


def test_one_tensor_under_two_names_is_refused(released: Path) -> None:
    tensors = tensors_of("hift.pt")
    torch.save({**tensors, "conv_pre.bias": tensors["pre_conv.bias"]}, released / "hift.pt")
    with pytest.raises(ValueError, match=r"pre_conv\.bias twice"):
        WaveformDecoder.from_pretrained(released)


def test_not_even_a_dictionary(released: Path) -> None:
    torch.save([torch.zeros(3)], released / "flow.pt")
    with pytest.raises(ValueError, match=r"flow\.pt holds a list"):
        WaveformDecoder.from_pretrained(released)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["flow"].update(size=3), r"config\.json: decoder config: unknown key flow\.size"),
        (lambda c: c["flow"].update(codebook_size="many"), r"config\.json: "),
        (lambda c: c["flow"].update(codebook_size=65), r"flow\.input_embedding\.weight \[64, 48\] instead of \[65"),
        (lambda c: c.update(model_type="other"), "holds no waveform decoder"),
    ],
)
def test_our_own_settings_are_checked(tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    path = convert_decoder(FIXTURES, tmp_path / "own") / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        WaveformDecoder.from_pretrained(path.parent)
    path.write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        WaveformDecoder.from_pretrained(path.parent)


def test_wrong_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no waveform decoder: expected config\.yaml"):
        WaveformDecoder.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"flow\.pt is a file; pass the folder"):
        WaveformDecoder.from_pretrained(FIXTURES / "flow.pt")
    with pytest.raises(ValueError, match="dtype='int8'"):
        WaveformDecoder.from_pretrained(FIXTURES, dtype="int8")
