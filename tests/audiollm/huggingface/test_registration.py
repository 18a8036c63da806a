"""`import audiollm` is enough for the auto classes of transformers, costs nothing, and asks no network."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioTokenization,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from audiollm import (
    AudioLLM,
    AudioLLMProcessor,
    UniAudioLM,
    UniAudioTokenizer,
    UniAudioTokenizerConfig,
    WaveformDecoder,
)
from audiollm.huggingface.registration import _CONFIGURATIONS, _configuration_module
from audiollm.mini import mini_folder

NO_NETWORK = """
import socket
def refuse(*_, **__): raise AssertionError("somebody asks the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
"""


def run(code: str) -> str:
    """Runs a program that has imported nothing, with the network cut and the Hub not switched off."""
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", NO_NETWORK + code]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(
    "order",
    [
        "import audiollm\nfrom transformers import AutoProcessor, AutoModelForAudioTokenization as A",
        "from transformers import AutoProcessor, AutoModelForAudioTokenization as A\nimport audiollm",
        "import audiollm.vocabulary\nfrom transformers import AutoProcessor, AutoModelForAudioTokenization as A",
    ],
)
def test_importing_is_enough_whoever_comes_first(order: str) -> None:
    folder = str(mini_folder())
    found = run(
        f"{order}\nimport sys; sys.stderr = open('/dev/null', 'w')\n"
        "assert 'audiollm.processing.processor' not in sys.modules\n"
        f"print(type(AutoProcessor.from_pretrained({folder!r})).__name__)\n"
        f"print(type(A.from_pretrained({folder!r})).__name__)"
    )
    assert found.split()[-2:] == ["AudioLLMProcessor", "UniAudioTokenizer"]


def test_the_multi_stream_lm_is_found_without_being_imported(tmp_path: Path) -> None:
    text_llm = Qwen2ForCausalLM(
        Qwen2Config(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    UniAudioLM.from_text_llm(text_llm, num_audio_streams=1).save_pretrained(tmp_path)
    found = run(
        "import audiollm, sys\nfrom transformers import AutoConfig, AutoModel\n"
        "assert 'audiollm.uniaudio.modeling' not in sys.modules\n"
        f"print(type(AutoConfig.from_pretrained({str(tmp_path)!r})).__name__)\n"
        f"print(type(AutoModel.from_pretrained({str(tmp_path)!r})).__name__)"
    )
    assert found.split()[-2:] == ["UniAudioLMConfig", "UniAudioLM"]


def test_nothing_asks_the_network_where_a_folder_is_named() -> None:
    found = run(
        "import audiollm\nfrom transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, pipeline\n"
        f"folder = {str(mini_folder())!r}\n"
        "model = audiollm.AudioLLM.from_pretrained(folder)\n"
        "audiollm.AudioLLM.from_pretrained(), audiollm.UniAudioTokenizer.from_pretrained('mini')\n"
        "for auto in (AutoModelForCausalLM, AutoProcessor, AutoTokenizer): auto.from_pretrained(folder)\n"
        "pipe = pipeline('any-to-any', model=folder, pipeline_class=audiollm.AnyToAnyPipeline)\n"
        "import torch; sound = (torch.zeros(8000) + 0.1, 16000)\n"
        "pipe('What is it?', audio=sound, max_new_tokens=2); model.ask(sound, 'What is it?', max_new_tokens=2)\n"
        "print('done')"
    )
    assert found.split()[-1] == "done"


def test_each_auto_class_finds_ours(codec: UniAudioTokenizer, tmp_path: Path) -> None:
    folder = mini_folder()
    assert isinstance(AutoProcessor.from_pretrained(folder), AudioLLMProcessor)
    assert isinstance(AutoModelForCausalLM.from_pretrained(folder), Qwen2ForCausalLM)
    assert len(AutoTokenizer.from_pretrained(folder)) == len(AudioLLM.from_pretrained().processor.tokenizer)
    codec.save_pretrained(tmp_path)
    for auto in (AutoModel, AutoModelForAudioTokenization):
        assert isinstance(auto.from_pretrained(tmp_path), UniAudioTokenizer)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), UniAudioTokenizerConfig)
    expected = UniAudioTokenizer.from_pretrained("mini").fingerprint()
    # The first one says "whisper" in config.json, the second one is an LLM's folder.
    for place, options in ((folder / "audio_tokenizer", {}), (folder, {}), (folder, {"subfolder": "audio_tokenizer"})):
        found = AutoModelForAudioTokenization.from_pretrained(place, **options)
        assert isinstance(found, UniAudioTokenizer)
        assert found.fingerprint() == expected


@pytest.mark.parametrize("family", sorted(_CONFIGURATIONS))
def test_the_listed_configurations_are_those_of_transformers(family: str) -> None:
    module = importlib.import_module(_configuration_module(family))
    assert getattr(module, _CONFIGURATIONS[family]) in AutoModelForAudioTokenization._model_mapping


def test_the_feature_extractor_gives_what_forward_takes(codec: UniAudioTokenizer, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert isinstance(extractor, WhisperFeatureExtractor)
    assert extractor.sampling_rate == codec.sample_rate
    waveform = torch.linspace(-1, 1, 16000).sin()
    features = extractor(waveform.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    codes = codec(features[..., :100]).codes
    assert codes.shape == (1, 25)


def test_a_processor_tells_the_rate_as_others_do(make_llm, text_tokenizer, codec) -> None:
    processor = AudioLLM.create(make_llm(), text_tokenizer, codec).processor
    assert processor.feature_extractor.sampling_rate == 16000
    assert not hasattr(AudioLLMProcessor(processor.tokenizer), "feature_extractor")


def test_an_audio_tokenizer_is_no_llm_and_a_plain_whisper_no_audio_tokenizer(codec, make_llm, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path / "codec")
    with pytest.raises(
        ValueError, match=r"is an audio tokenizer and no LLM: load it with AutoModelForAudioTok.*create"
    ):
        AutoModelForCausalLM.from_pretrained(tmp_path / "codec")
    make_llm().save_pretrained(tmp_path / "llm")
    with pytest.raises(ValueError, match=r"holds no audio tokenizer.*describes a 'qwen2' model"):
        AutoModelForAudioTokenization.from_pretrained(tmp_path / "llm")
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(ValueError, match=r"plain Whisper model without a quantizer.*from_whisper"):
        AutoModelForAudioTokenization.from_pretrained(tmp_path)


def test_an_audio_llm_is_a_place_of_its_audio_tokenizer_too() -> None:
    of_llm = UniAudioTokenizer.from_pretrained(mini_folder())
    assert of_llm.fingerprint() == UniAudioTokenizer.from_pretrained("mini").fingerprint()


def test_both_layouts_of_an_audio_tokenizer_are_the_same_to_every_auto_class(
    codec: UniAudioTokenizer, tmp_path: Path
) -> None:
    codec.save_pretrained(tmp_path / "own")
    codec.export_released(tmp_path / "released")
    assert json.loads((tmp_path / "released" / "config.json").read_text())["model_type"] == "whisper"
    for place in (tmp_path / "own", tmp_path / "released"):
        config = AutoConfig.from_pretrained(place)
        assert isinstance(config, UniAudioTokenizerConfig)
        assert config.quantize_position == codec.config.quantize_position
        found = AutoModel.from_pretrained(place)
        assert isinstance(found, UniAudioTokenizer)
        assert found.fingerprint() == codec.fingerprint()
        with pytest.raises(ValueError, match="is an audio tokenizer and no LLM"):
            AutoModelForCausalLM.from_pretrained(place)
        with pytest.raises(ValueError, match="is an audio tokenizer and has no text tokenizer"):
            AutoTokenizer.from_pretrained(place)
        assert isinstance(AutoProcessor.from_pretrained(place), WhisperFeatureExtractor)


def test_a_plain_whisper_stays_one(tmp_path: Path) -> None:
    config = WhisperConfig(encoder_layers=1, decoder_layers=1, d_model=8, encoder_attention_heads=2, vocab_size=60)
    config.save_pretrained(tmp_path)
    found = AutoConfig.from_pretrained(tmp_path, d_model=16)
    assert type(found) is WhisperConfig
    assert (found.d_model, found.encoder_layers) == (16, 1)


def test_a_configuration_of_another_model_is_none_of_an_audio_tokenizer(make_llm, tmp_path: Path) -> None:
    make_llm().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds no configuration of an audio tokenizer"):
        UniAudioTokenizerConfig.from_pretrained(tmp_path)


def test_what_belongs_to_an_audio_llm_is_found_wherever_it_is(make_llm, text_tokenizer, codec, tmp_path: Path) -> None:
    model = AudioLLM.create(make_llm(), text_tokenizer, codec)
    model.save_pretrained(tmp_path / "run" / "model")
    (tmp_path / "run" / "run.json").write_text("{}")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "run/model")}))
    for place in (tmp_path / "run" / "model", tmp_path / "run", adapter):
        assert len(AudioLLMProcessor.from_pretrained(place).tokenizer) == len(text_tokenizer)
    assert AudioLLMProcessor.from_pretrained("mini").has_audio_tokenizer
    mini, named = (WaveformDecoder.from_pretrained(place) for place in ("mini", mini_folder()))
    assert mini.fingerprint() == named.fingerprint()


@pytest.mark.parametrize("place", ["/no/such", "./no_such", "a/b/c"])
def test_a_path_that_is_not_there_is_no_hub_id(place: str) -> None:
    with pytest.raises(ValueError, match=r"is no folder: give an Audio-LLM folder or a Hub id"):
        AudioLLMProcessor.from_pretrained(place)


def test_a_folder_without_text_tokenizer_is_no_processors(codec, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds no processor, it has no tokenizer\.json"):
        AudioLLMProcessor.from_pretrained(tmp_path)
