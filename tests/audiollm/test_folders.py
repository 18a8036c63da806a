"""The waveform decoder stays with the audio tokenizer, wherever an Audio-LLM's folder comes from and goes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

import audiollm.processing.processor
from audiollm import AudioLLM, AudioLLMProcessor
from audiollm.folders import check_text_llm
from audiollm.mini import mini_folder
from audiollm.tokenizer import UniAudioTokenizer

DECODER = Path(__file__).parents[1] / "fixtures" / "parity" / "decoder"
CODES = torch.tensor([[3, 60, 17]])
OWN = {"decoder/config.json", "decoder/model.safetensors"}


@pytest.fixture
def release(codec: UniAudioTokenizer, tmp_path: Path) -> Path:
    """``tokenizer/`` and ``decoder/`` side by side, as released."""
    codec.export_released(tmp_path / "release" / "tokenizer")
    (tmp_path / "release" / "decoder").mkdir()
    for name in ("config.yaml", "flow.pt", "hift.pt"):
        shutil.copy(DECODER / name, tmp_path / "release" / "decoder")
    return tmp_path / "release"


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def speaks(processor: AudioLLMProcessor) -> bool:
    tokenizer = processor.audio_tokenizer
    assert tokenizer.can_decode
    (waveform,) = tokenizer.decode(CODES, steps=1)
    return len(waveform) == 10 * 256 and bool(waveform.abs().max() > 0)


def test_an_audio_llm_keeps_the_decoder_of_its_tokenizer(
    release: Path, make_llm: Any, text_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    made = AudioLLM.create(make_llm(), text_tokenizer, str(release))
    made.save_pretrained(tmp_path / "first")
    assert files_of(tmp_path / "first" / "audio_tokenizer") >= OWN
    # Saved again without ever loading the audio tokenizer, and over itself.
    loaded = AudioLLM.from_pretrained(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "second")
    AudioLLM.from_pretrained(tmp_path / "second").save_pretrained(tmp_path / "second")
    assert files_of(tmp_path / "second") == files_of(tmp_path / "first")
    assert speaks(AudioLLM.from_pretrained(tmp_path / "second").processor)


@pytest.mark.parametrize("place", ["", "tokenizer"])
def test_a_release_is_copied_with_its_decoder(
    release: Path, make_llm: Any, text_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, place: str
) -> None:
    AudioLLM.create(make_llm(), text_tokenizer, str(release))  # extends the text tokenizer
    AudioLLMProcessor(text_tokenizer, codec_path=str(release / place)).save_pretrained(tmp_path / "saved")
    shutil.rmtree(release)
    assert speaks(AudioLLMProcessor.from_pretrained(tmp_path / "saved"))


def test_pushing_a_processor_uploads_the_decoder(
    release: Path,
    make_llm: Any,
    text_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = AudioLLM.create(make_llm(), text_tokenizer, str(release))
    uploads: list[set[str]] = []

    def upload(*, repo_id: str, folder_path: str, ignore_patterns: list[str], **options: Any) -> None:
        assert (repo_id, ignore_patterns) == ("someone/audio-llm", ["model*.safetensors*"])
        uploads.append(files_of(Path(folder_path)))

    monkeypatch.setattr(audiollm.processing.processor, "upload_folder", upload)
    made.processor.save_pretrained(tmp_path)
    made.processor._upload_modified_files(tmp_path, "someone/audio-llm", {}, commit_message="Upload")
    assert {f"audio_tokenizer/{name}" for name in OWN} <= uploads[0]


def test_only_a_text_llm_is_extended(release: Path, make_llm: Any, tmp_path: Path) -> None:
    run, adapter = tmp_path / "run", tmp_path / "adapter"
    run.mkdir()
    (run / "model").symlink_to(mini_folder())
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    for name in ("mini", mini_folder(), run):
        with pytest.raises(
            ValueError, match=rf"{name} is an Audio-LLM already: train it as .* --model {name}, without"
        ):
            AudioLLM.create(name, audio_tokenizer="mini")
    for name in (mini_folder() / "audio_tokenizer", release):
        with pytest.raises(ValueError, match=f"{name} is an audio tokenizer: name it with --audio-tokenizer; what is"):
            check_text_llm(name)
    with pytest.raises(ValueError, match="holds an adapter alone: name the model that it was merged into"):
        check_text_llm(adapter)
    make_llm().save_pretrained(tmp_path / "llm")
    for name in (tmp_path / "llm", "owner/name"):
        check_text_llm(name)
