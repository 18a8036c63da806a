"""The recipe of mini, with toy corpora and tiny models: what is asked follows from labels, what ships is small and the
same, figures stand beside baselines, and steps run when they are due."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiollm import mini as embedded
from audiollm.benchmarks.speech.judges.attributes import JudgeWords
from audiollm.data.corpora.clips import Clip, CorpusError, load_manifest, save_manifest
from audiollm.data.corpora.sources import synthetic
from audiollm.data.records import SPLITS
from audiollm.data.tokenizing.corpus import tokenize_corpus
from audiollm.data.voices.attributes import VocalAttributes
from audiollm.generation.passed_on import audio_sampling_of_checkpoint
from audiollm.modeling import AudioLLM
from audiollm.tokenizer.checkpoints import mini as embedded_folder
from audiollm.tokenizer.decoder.model import WaveformDecoder
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.training import mini
from audiollm.training.audio_llm.small_llm import SmallLLMConfig
from audiollm.training.recipes.mini import data as mini_data
from audiollm.training.recipes.mini import evaluation as mini_evaluation
from audiollm.training.recipes.mini import package as mini_package
from audiollm.training.recipes.mini import samples as mini_samples
from audiollm.training.recipes.mini import sampling, speaking
from audiollm.training.recipes.mini import tokenizer as mini_tokenizer
from audiollm.training.recipes.mini.alignment import WordAligner
from audiollm.training.recipes.mini.card import percent, write_card
from audiollm.training.recipes.mini.conversations import (
    answers_of,
    make_aligner,
    questions_about,
    request_of,
    requests_to_speak,
    sap_questions,
    voice_sentence,
    write_conversations,
)
from audiollm.training.recipes.mini.evaluation import evaluate_mini
from audiollm.training.recipes.mini.held_out import held_out_sentences
from audiollm.training.recipes.mini.layout import MiniLayout
from audiollm.training.recipes.mini.lm import make_lm, spoken_characters_of
from audiollm.training.recipes.mini.package import folder_size, make_package, shrink_tokenizer

from .conftest import Assets, tiny_decoder

TINY_LM = SmallLLMConfig(
    vocabulary_size=300, hidden_size=16, num_layers=1, num_heads=2, num_key_value_heads=1, feed_forward_size=16,
    context_length=512,
)  # fmt: skip
BRITISH = {"gender": "female", "age": "adult", "accent": "British", "speed": "moderate", "pitch": "high"}
VOICE = {"gender": "male", "age": "adult", "accent": "Scottish", "speed": "fast", "pitch": "medium"}
LONG_HELD_OUT = max(held_out_sentences(), key=len)
FEW_HELD_OUT = tuple(sorted(held_out_sentences(), key=len)[:4])
LABELS = {"sonic-pi": "drum_snare", "opensfx": "train"}


def toy_clip(folder: Path, corpus: str, number: int, split: str, **facts: Any) -> Clip:
    path = folder / corpus / f"{number}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(number)
    seconds = facts.pop("seconds", 0.6)
    soundfile.write(path, (torch.rand(int(seconds * 16000), generator=generator) * 0.1).numpy(), 16000)
    return Clip(
        id=f"{corpus}/{number}", group=f"{corpus} {number}", duration_seconds=seconds, split=split, audio=path,
        sha256="0" * 64, attribution=f"Ann of {corpus}", source=f"{corpus} 1.0: {number}",
        **{"sound_type": "speech", "licence": "MIT", **facts},
    )  # fmt: skip


def toy_corpus(layout: MiniLayout, name: str) -> None:
    folder = layout.corpus(name)
    clips = []
    for number, split in enumerate(("train", "train", "dev", "test", "test")):
        if name == "asterisk":
            speaker = "asterisk/en_US_f_Allison"
            clips.append(toy_clip(folder, name, number, split, text=f"Press {number}.", language="en", speaker=speaker))
        elif name == "flite-speech":
            text = f"It is {number} o'clock."
            clips.append(toy_clip(folder, name, number, split, text=text, language="en", attributes=VOICE))
        elif name == "open-speech":
            facts = {"language": "en", "attributes": BRITISH, "speaker": "pico/pico-gb"}
            clips.append(toy_clip(folder, name, number, split, text=f"A piebald horse has {number} legs.", **facts))
        elif name in LABELS:
            sound = {"sound_type": "sound", "label": LABELS[name], "licence": "CC0-1.0"}
            clips.append(toy_clip(folder, name, number, split, **sound))
        else:
            mood = {"label": "calm", "attributes": {"style": "acoustic", "bpm": 70}} if name == "immich-music" else {}
            clips.append(toy_clip(folder, name, number, split, sound_type="music", **mood))
    if name == "open-speech":
        says_held_out = f"Once more: {' '.join(LONG_HELD_OUT.split()[1:])}"
        clips.append(toy_clip(folder, name, 5, "train", text=says_held_out, **facts))
        clips.append(toy_clip(folder, name, 6, "train", text="No.", seconds=0.1, **facts))
    if name == "asterisk":
        clips.append(toy_clip(folder, name, 9, "train", text="Premi uno.", language="it", licence="CC-BY-3.0"))
        clips.append(toy_clip(folder, name, 10, "train", text="Wait.", language="en", seconds=0.1))
        # The LM learns English alone, and so it is not asked about this one.
        clips.append(toy_clip(folder, name, 11, "test", text="Premi due.", language="it", licence="CC-BY-3.0"))
    save_manifest(clips, folder / "manifest.jsonl")


def aligner(layout: MiniLayout) -> WordAligner:
    return make_aligner([layout.codes("train"), layout.more_codes], codebook_size=64)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, assets: Assets) -> MiniLayout:
    """A run with data, a tokenizer with a decoder, codes, conversations, an untrained LM and a package."""
    layout = MiniLayout(tmp_path_factory.mktemp("mini"))
    for name in mini_data.CORPORA:
        toy_corpus(layout, name)
    mini_data.write_tokenizer_data(layout)
    mini_data.write_more_speech(layout)
    mini_data.write_vocoder_data(layout)
    UniAudioTokenizer.from_pretrained(assets.audio_tokenizer).export_released(layout.tokenizer)
    shrink_tokenizer(layout.tokenizer)
    tokenizer = UniAudioTokenizer.from_pretrained(layout.tokenizer)
    for split in SPLITS:
        tokenize_corpus(layout.tokenizer_data(split), tokenizer, layout.codes(split), progress=False)
    tokenize_corpus(layout.more_speech, tokenizer, layout.more_codes, progress=False)
    for split in SPLITS:
        write_conversations(layout.codes(split), layout.lm_data(split), aligner(layout))
    mini_data.write_flow_data(layout)
    torch.manual_seed(0)
    WaveformDecoder(tiny_decoder()).save_pretrained(layout.tokenizer / "decoder")
    make_lm(layout.tokenizer, layout.lm_data("train"), layout.model, TINY_LM, seed=0)
    make_package(layout.model, layout.tokenizer, layout.package)
    return layout


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_characters_that_are_spoken_often_enough_are_written_down(tmp_path) -> None:
    def record(said: str, *more: dict[str, Any]) -> dict[str, Any]:
        answer = [{"type": "text", "text": said}, *more]
        return {"messages": [{"role": "user", "content": "Say xyz."}, {"role": "assistant", "content": answer}]}

    spoken = {"type": "audio", "codes": [1]}
    path = tmp_path / "records.jsonl"
    lines = [*[record("Bab 7.", spoken)] * 20, *[record("q", spoken)] * 19, *[record("never spoken")] * 30]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert spoken_characters_of(path) == "7ab"


# ------------------------------------------------------------------ tokenizer


def test_the_tokenizer_is_fitted_to_every_training_clip_once_and_keeps_whisper(layout, tokenizer_corpus, monkeypatch):
    monkeypatch.setattr(mini_tokenizer, "CODEBOOK_SIZE", 64)
    monkeypatch.setattr(mini_tokenizer, "METRIC_SIZE", 12)
    heard: list[str] = []
    original = mini_tokenizer.load_audio
    monkeypatch.setattr(mini_tokenizer, "load_audio", lambda path, rate: heard.append(path) or original(path, rate))
    model, fit = mini_tokenizer.make_tokenizer(layout, tokenizer_corpus.whisper, seed=0)
    records = [*read(layout.tokenizer_data("train")), *read(layout.more_speech)]
    assert sorted(heard) == sorted({record["audio"] for record in records})
    assert model.config.sae_is_active
    assert fit.usage > 0.5
    whisper = UniAudioTokenizer.from_whisper(tokenizer_corpus.whisper, quantize_position=2, codebook_size=64)
    for name, weight in whisper.encoder.state_dict().items():
        assert torch.equal(model.tokenizer.encoder.state_dict()[name], weight), name
    again, _ = mini_tokenizer.make_tokenizer(layout, tokenizer_corpus.whisper, seed=0)
    assert again.tokenizer.fingerprint() == model.tokenizer.fingerprint()

    monkeypatch.setattr(mini_tokenizer, "FRAMES_PER_ENTRY", 1)
    heard.clear()
    mini_tokenizer.make_tokenizer(layout, tokenizer_corpus.whisper, seed=0)
    assert 0 < len(heard) < len({record["audio"] for record in records})


# ----------------------------------------------------------------------- data


def test_tokenizer_and_decoder_learn_from_all_languages_and_the_lm_from_english(layout):
    train = read(layout.tokenizer_data("train"))
    assert {record.get("language") for record in train} == {"en", "it", None}
    assert {record["sound_type"] for record in train} == {"speech", "sound", "music"}
    vocoder = {record["id"] for record in read(layout.vocoder_data("train"))}
    assert vocoder == {record["id"].partition("#")[0] for record in train}
    assert "asterisk/9" in vocoder
    assert "asterisk/10" not in vocoder  # too short
    assert not any(record["id"].startswith("asterisk/9/") for record in read(layout.lm_data("train")))
    for record in read(layout.vocoder_data("test")):
        assert record["codes"] == [0] * 15


def test_every_open_sentence_of_training_is_either_shared_or_for_the_lm_alone(layout, tmp_path):
    shared = {record["id"] for record in read(layout.tokenizer_data("train")) if record["id"].startswith("open-")}
    more = {record["id"] for record in read(layout.more_speech)}
    assert not shared & more
    assert shared | more == {"open-speech/0", "open-speech/1"}
    own = aligner(layout)
    write_conversations(layout.codes("train"), tmp_path / "train.jsonl", own, more_speech=layout.more_codes)
    records = read(tmp_path / "train.jsonl")
    added = [record for record in records if record["id"].rpartition("/")[0] in more]
    assert Counter(record["task"] for record in added) == {"transcribe": len(more), "speak": len(more)}
    assert [record for record in records if record not in added] == read(layout.lm_data("train"))
    assert len({record["id"] for record in records}) == len(records)


def test_the_flow_model_learns_from_every_recording_once_and_from_all_open_sentences(layout):
    ids = [record["id"] for record in read(layout.flow_data)]
    assert len(ids) == len(set(ids))
    recordings = {record["id"].partition("#")[0] for record in read(layout.codes("train"))}
    assert set(ids) == recordings | {record["id"] for record in read(layout.more_codes)}
    assert all(record["codes"] for record in read(layout.flow_data))


def test_only_the_clear_voices_are_asked_to_speak(layout, tmp_path):
    own = aligner(layout)
    write_conversations(
        layout.codes("train"), tmp_path / "train.jsonl", own, more_speech=layout.more_codes, num_spoken=2
    )
    spoken = [record for record in read(tmp_path / "train.jsonl") if record["task"] == "speak"]
    assert {record["id"].partition("/")[0] for record in spoken} == {"open-speech"}
    assert all("British" in str(record["messages"][0]["content"]) for record in spoken if "#" not in record["id"])
    # Each twice, in other words.
    requests: dict[str, set[str]] = {}
    for record in spoken:
        clip = record["id"].rpartition("/")[0].partition("#")[0]
        requests.setdefault(clip, set()).add(record["messages"][0]["content"][0]["text"])
    assert {len(wordings) for wordings in requests.values()} == {2}
    assert len({record["id"] for record in spoken}) == len(spoken)


def test_manifests_are_read_once_for_all_splits(layout, monkeypatch):
    read = []
    original = mini_data.load_manifest
    monkeypatch.setattr(mini_data, "load_manifest", lambda folder: read.append(folder) or original(folder))
    before = {split: layout.tokenizer_data(split).read_bytes() for split in SPLITS}
    mini_data.write_tokenizer_data(layout)
    assert sorted(read) == sorted(map(layout.corpus, mini_data.CORPORA))
    assert {split: layout.tokenizer_data(split).read_bytes() for split in SPLITS} == before
    read.clear()
    mini_data.write_vocoder_data(layout)
    assert len(read) == len(mini_data.CORPORA)


def test_only_training_clips_are_repeated_and_every_repetition_has_its_own_id(layout):
    for split in SPLITS:
        ids = [record["id"] for record in read(layout.tokenizer_data(split))]
        assert len(set(ids)) == len(ids)
        counts = Counter(name.partition("#")[0] for name in ids)
        for clip in mini_data.clips_of(layout, split):
            is_repeated = split == "train" and clip.language != "it"
            assert counts[clip.id] == (mini_data.REPEATS.get(clip.id.partition("/")[0], 1) if is_repeated else 1)


def test_no_training_clip_says_what_a_held_out_sentence_says(layout, tmp_path):
    held_out = MiniLayout(tmp_path)
    for name in mini_data.CORPORA:
        shutil.copytree(layout.corpus(name), held_out.corpus(name))
    manifest = held_out.corpus("flite-speech") / "manifest.jsonl"
    lines = manifest.read_text(encoding="utf-8").replace("It is 0 o'clock.", held_out_sentences()[0])
    manifest.write_text(lines, encoding="utf-8")
    for clips in (mini_data.clips_of(layout, "train"), mini_data.clips_of(held_out, "train")):
        assert not any(clip.text in held_out_sentences() for clip in clips)
    assert len(mini_data.clips_of(layout, "train")) == len(mini_data.clips_of(held_out, "train")) + 1


def test_nothing_of_one_split_is_in_another(layout):
    groups = [{record["group"] for record in read(layout.tokenizer_data(split))} for split in SPLITS]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


# -------------------------------------------------------------- conversations


def test_answers_follow_from_labels(layout):
    clips = {clip["id"]: clip for clip in read(layout.codes("test"))}
    fast_scot = "A man with a Scottish accent speaks quickly."
    assert answers_of(clips["flite-speech/3"]) == {
        "transcribe": "It is 3 o'clock.", "kind": "speech", "speaker": fast_scot, "describe": fast_scot,
        "gender": "A man.", "accent": "Scottish",
    }  # fmt: skip
    assert answers_of(clips["asterisk/3"])["describe"] == "A woman with an American accent speaks."
    assert answers_of(clips["sonic-pi/3"])["sound"] == "snare drum"
    calm = "Calm acoustic music is playing at a slow tempo."
    assert answers_of(clips["immich-music/3"]) == {"kind": "music", "describe": calm, "music": calm}
    assert answers_of(clips["asterisk-moh/3"]) == {"kind": "music", "describe": "Music is playing."}


def test_a_voice_is_always_described_in_the_same_words():
    assert voice_sentence(VocalAttributes()) == "Someone speaks."
    low = VocalAttributes(gender="female", accent="Scottish", speed="slow", pitch="low", age="adult")
    assert voice_sentence(low) == "A woman with a Scottish accent speaks slowly in a low voice."


def test_conversations_ask_and_answer_about_the_codes_of_their_clip(layout):
    clips = {clip["id"]: clip for clip in read(layout.codes("train"))}
    records = read(layout.lm_data("train"))
    assert len({record["id"] for record in records}) == len(records)
    assert {"transcribe", "kind", "describe", "sound", "music", "question"} <= {r["task"] for r in records}
    for record in records:
        user, assistant = record["messages"]
        clip = clips[record["id"].rpartition("/")[0]]
        if record["task"] == "speak":
            written, spoken = assistant["content"][::2], assistant["content"][1::2]
            assert [part["type"] for part in (*written, *spoken)] == ["text"] * len(written) + ["audio"] * len(spoken)
            assert "".join(part["text"] for part in written) == clip["text"]
            assert [code for part in spoken for code in part["codes"]] == clip["codes"]
            assert clip["text"] in user["content"][0]["text"]
        else:
            assert user["content"][0] == {"type": "audio", "codes": clip["codes"]}
        if record["task"] in answers_of(clip):
            assert assistant["content"] == answers_of(clip)[record["task"]]


def test_a_clip_of_speech_gets_few_questions_in_training_and_all_when_held_out(tmp_path, layout):
    write_conversations(layout.codes("test"), tmp_path / "all.jsonl", aligner(layout), drawn_questions=None)
    asked = [r["task"] for r in read(tmp_path / "all.jsonl") if r["id"].startswith("flite-speech/3/")]
    assert sorted(asked) == sorted(["transcribe", "kind", "speaker", "describe", "gender", "accent", "question"])
    few = [r for r in read(layout.lm_data("test")) if r["id"].startswith("flite-speech/3/")]
    tasks = Counter(record["task"] for record in few)
    assert tasks["transcribe"] == 2
    assert sum(tasks[task] for task in ("kind", "speaker", "describe", "gender", "accent")) == 1
    wordings = {r["messages"][0]["content"][1]["text"] for r in few if r["task"] == "transcribe"}
    assert len(wordings) == 2
    speech = [clip["id"] for clip in read(layout.codes("train")) if clip["sound_type"] == "speech"]
    asked = [r["id"] for r in read(layout.lm_data("train")) if r["task"] == "question"]
    assert 0 < sum(f"{clip}/question" in asked for clip in speech) < len(speech)


def clip_of(layout: MiniLayout, clip_id: str) -> dict[str, Any]:
    return next(clip for clip in read(layout.codes("train")) if clip["id"] == clip_id)


def test_repetitions_are_about_pieces_of_many_lengths(layout):
    clip = clip_of(layout, "immich-music/0") | {"codes": list(range(250))}
    heard = [r["messages"][0]["content"][0]["codes"] for r in questions_about(clip, 1, 40) if r["task"] == "kind"]
    assert heard[0] == clip["codes"]
    for codes in heard[1:]:
        assert 25 <= len(codes) < 250
        assert codes == list(range(codes[0], codes[0] + len(codes)))
    assert len({len(codes) for codes in heard}) > 20
    assert len({codes[0] for codes in heard}) > 20


def test_clips_of_a_rare_kind_are_asked_about_oftener_in_other_words(layout, tmp_path):
    write_conversations(layout.codes("train"), tmp_path / "train.jsonl", aligner(layout), num_asked={"music": 3})
    records = read(tmp_path / "train.jsonl")
    assert len({record["id"] for record in records}) == len(records)
    often = [r for r in records if r["task"] == "kind" and r["id"].startswith("immich-music/0/")]
    assert len(often) == 3
    assert len({r["messages"][0]["content"][1]["text"] for r in often}) > 1
    assert {r["messages"][1]["content"] for r in often} == {"music"}
    assert often[0]["messages"][0]["content"][0]["codes"] == clip_of(layout, "immich-music/0")["codes"]
    others = [r for r in records if "music" not in r["id"] and "moh" not in r["id"]]
    before = [r for r in read(layout.lm_data("train")) if "music" not in r["id"] and "moh" not in r["id"]]
    assert others == before


def test_questions_with_choices_hold_their_answer(layout):
    for clip in read(layout.codes("test")):
        (question,) = sap_questions(clip, {}, count=1, kinds=("multiple_choice",))
        assert question.answer in question.choices
        assert question.field not in ("age", "linguistic_content")


def test_what_is_too_long_to_speak_is_not_asked_for(layout):
    clips = [clip | {"duration_seconds": 11.0} for clip in read(layout.codes("test"))]
    assert list(requests_to_speak(clips, aligner(layout))) == []
    assert request_of("gender") == "Is the speaker a man or a woman?"


def test_whatever_the_id_of_a_clip_its_own_codes_answer(layout):
    clips = [clip | {"id": f"a#{n}/b#{n}"} for n, clip in enumerate(read(layout.more_codes))]
    records = list(requests_to_speak(clips, aligner(layout), num_spoken=3))
    assert len(records) == 3 * len(clips)
    for clip, record in zip(3 * clips, records, strict=True):
        parts = record["messages"][1]["content"]
        assert [code for part in parts for code in part.get("codes", ())] == clip["codes"]


# -------------------------------------------------------------------- package


def test_the_package_is_half_as_large_and_gives_the_same_codes_and_answers(layout):
    assert folder_size(layout.package) < folder_size(layout.model) + folder_size(layout.tokenizer)
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in layout.package.rglob("*"))  # everybody may read it
    full, small = AudioLLM.from_pretrained(layout.model), AudioLLM.from_pretrained(layout.package)
    assert small.model.dtype == torch.float32
    assert small.processor.audio_tokenizer.can_decode
    assert "CC-BY-SA-3.0" in small.processor.audio_tokenizer.licence_note
    assert not list(layout.package.rglob("README.md"))  # those of the parts say that the licence is open
    noise = torch.randn(20000, generator=torch.Generator().manual_seed(0)) * 0.1
    codes = [model.processor.audio_tokenizer.encode(noise, 16000).tolist() for model in (full, small)]
    assert codes[0] == codes[1]
    tokenizers = [model.processor.audio_tokenizer for model in (full, small)]
    assert (
        tokenizers[0].fingerprint() == tokenizers[1].fingerprint() == read(layout.codes("test"))[0]["audio_tokenizer"]
    )
    ids = full.processor.apply_chat_template([{"role": "user", "content": "What is said?"}])["input_ids"]
    assert torch.equal(
        ids, small.processor.apply_chat_template([{"role": "user", "content": "What is said?"}])["input_ids"]
    )
    with torch.no_grad():
        logits = [model.model(ids).logits for model in (full, small)]
    torch.testing.assert_close(logits[0], logits[1], atol=1e-2, rtol=1e-2)


def test_too_large_a_package_is_not_written(layout, tmp_path, monkeypatch):
    monkeypatch.setattr(mini_package, "BYTE_BUDGET", 10_000)
    with pytest.raises(ValueError, match=r"more than 10,000:\n.*model\.safetensors"):
        make_package(layout.model, layout.tokenizer, tmp_path / "package")
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_not_whole_is_not_packed(layout, tmp_path):
    shutil.copytree(layout.model, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 missing: model\.norm\.weight"):
        make_package(tmp_path / "model", layout.tokenizer, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_installing_replaces_the_embedded_model(layout, tmp_path, monkeypatch):
    (tmp_path / "audiollm").mkdir()
    monkeypatch.setattr(mini_package.audiollm, "__file__", str(tmp_path / "audiollm" / "__init__.py"))
    target = tmp_path / "audiollm" / "embedded" / "mini"
    target.mkdir(parents=True)
    (target / "old").touch()
    assert mini_package.install_package(layout.package) == target
    assert not (target / "old").exists()
    monkeypatch.setattr(embedded_folder, "_FOLDER", target)
    assert embedded.mini_folder() == target
    assert AudioLLM.from_pretrained().vocabulary == AudioLLM.from_pretrained("mini").vocabulary
    assert Path(embedded.audio_tokenizer_or_mini(None)).is_dir()


def test_without_the_embedded_model_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded_folder, "_FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"lacks the embedded model.*make mini"):
        AudioLLM.from_pretrained()
    assert embedded.model_or_mini("my/model") == "my/model"
    assert embedded.audio_tokenizer_or_mini("folder") == "folder"


# ----------------------------------------------------------- figures and card


class StubTranscriber:
    """Hears the right text in originals at 16 kHz, and one wrong word in anything else."""

    texts: Sequence[str] = ()

    def __init__(self, source: str) -> None:
        self.source = source

    def transcribe(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str]:
        assert all(len(waveform) for waveform in waveforms)
        return ["press" if sample_rate == 16000 else "nothing at all"] * len(waveforms)


class StubJudge:
    """Takes everybody for a woman, but says nothing of every third."""

    name = "stub judge"

    def __init__(self) -> None:
        self.num_heard = 0

    def describe(self, path: Path) -> JudgeWords:
        assert path.is_file()
        self.num_heard += 1
        woman = {"linguistic_content": "a", "vocal_attributes": {"gender": "female"}}
        return JudgeWords("?" if self.num_heard % 3 == 0 else json.dumps(woman), is_cut=self.num_heard == 2)


def read_as_noise(text: str, voice: str, **manner: Any) -> Tensor:
    return torch.rand(len(text) * 800, generator=torch.Generator().manual_seed(len(text))) * 0.1


def no_synthesizer() -> Path:
    raise CorpusError("there is no synthesizer for abacuses")


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_everything(monkeypatch)


def stub_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(mini_evaluation, "Transcriber", StubTranscriber)
    patch.setattr(mini_evaluation, "open_judge", lambda source, device: StubJudge())
    patch.setattr(mini_evaluation, "MAX_SPOKEN_SECONDS", 1.0)
    patch.setattr(speaking, "MAX_SPOKEN_SECONDS", 1.0)
    patch.setattr(synthetic, "flite_program", lambda: Path("/nowhere/flite"))
    patch.setattr(synthetic, "synthesize", read_as_noise)
    patch.setattr(mini_samples, "Transcriber", StubTranscriber)
    patch.setattr(mini_samples, "MAX_SPOKEN_SECONDS", 1.0)
    patch.setattr(mini_samples, "SHORTEST_SECONDS", 0.1)
    for module in (mini_data, mini_evaluation, mini_samples):
        patch.setattr(module, "held_out_sentences", lambda: FEW_HELD_OUT)


@pytest.fixture(scope="module")
def figures(layout: MiniLayout) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        stub_everything(patch)
        return evaluate_mini(layout.package, layout, judge="stub", spoken_clips=3, held_out=4, voice_judge="stub")


def test_codes_are_drawn_in_the_way_that_is_understood_best(layout, tmp_path, monkeypatch):
    package, own = tmp_path / "package", MiniLayout(tmp_path)
    shutil.copytree(layout.package, package)
    clips = [
        {"id": f"open-speech/{n}", "text": text, "duration_seconds": 2.0}
        for n, text in enumerate(["A letter.", "The garden.", "Old men read."])
    ]
    own.tokenizer_data("dev").parent.mkdir()
    own.tokenizer_data("dev").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    monkeypatch.setattr(speaking, "MAX_SPOKEN_SECONDS", 1.0)
    ways = ({"temperature": 1.0}, {"temperature": 0.5, "top_k": 2}, {"temperature": 0.7})
    spoken: list[dict[str, Any]] = []
    real = sampling.speak_sentences

    def speak_sentences(model: AudioLLM, texts: list[str], voices: list[Any], **settings: Any) -> list[Any]:
        spoken.append({"texts": texts, "settings": settings})
        return real(model, texts, voices, **settings)

    class Hears(StubTranscriber):
        """Understands the second way alone."""

        def transcribe(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str]:
            return list(spoken[-1]["texts"]) if len(spoken) == 2 else ["something else"] * len(waveforms)

    monkeypatch.setattr(sampling, "speak_sentences", speak_sentences)
    monkeypatch.setattr(sampling, "Transcriber", Hears)
    found = sampling.choose_audio_sampling(package, own, "stub", candidates=ways, num_sentences=2)
    assert [one["settings"] for one in spoken] == list(ways)
    assert found["chosen"] == ways[1]
    assert [one["wer_capped"] for one in found["tried"]] == [1.0, 0.0, 1.0]
    stored = AudioLLM.from_pretrained(package).model.generation_config
    assert audio_sampling_of_checkpoint(stored) == ways[1]


@pytest.mark.parametrize(("rates", "chosen"), [([0.42, 0.43, 0.41], 0), ([0.44, 0.43, 0.41], 1), ([0.5, 0.5, 0.2], 2)])
def test_of_ways_that_are_as_good_the_steadiest_is_taken(rates: list[float], chosen: int) -> None:
    tried = [{"settings": {"temperature": n}, "wer_capped": rate} for n, rate in enumerate(rates)]
    assert sampling._best(tried) == {"temperature": chosen}


def test_the_flow_model_goes_the_way_that_is_understood_best(layout, tmp_path, monkeypatch):
    package, own = tmp_path / "package", MiniLayout(tmp_path)
    shutil.copytree(layout.package, package)
    texts = ["A letter.", "The garden."]
    clips = [
        {"id": f"open-speech/{n}", "text": text, "duration_seconds": 0.4, "codes": list(range(10))}
        for n, text in enumerate(texts)
    ]
    own.codes("dev").parent.mkdir()
    own.codes("dev").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    ways = ({"mean_prior": 0.3, "steps": 1}, {"mean_prior": 0.0, "steps": 2}, {"mean_prior": 0.0, "steps": 3})
    file = package / "audio_tokenizer" / "decoder" / "config.json"
    before = json.loads(file.read_text())
    heard: list[Sequence[Tensor]] = []

    class Hears(StubTranscriber):
        """Understands the second way alone."""

        def transcribe(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str]:
            heard.append(waveforms)
            return texts if len(heard) == 2 else ["something else"] * len(waveforms)

    monkeypatch.setattr(sampling, "Transcriber", Hears)
    found = sampling.choose_flow_settings(package, own, "stub", candidates=ways, num_sentences=2)
    assert found["chosen"] == ways[1]
    assert [one["wer_capped"] for one in found["tried"]] == [1.0, 0.0, 1.0]
    assert json.loads(file.read_text()) == before | {"flow": before["flow"] | ways[1]}
    assert not torch.equal(heard[0][0], heard[1][0])
    loaded = AudioLLM.from_pretrained(package).processor.audio_tokenizer.decoder.config.flow
    assert (loaded.mean_prior, loaded.steps) == (0.0, 2)


def test_figures_stand_beside_baselines(figures):
    assert figures["clips"] == {"speech": 4, "sound": 4, "music": 4}
    assert set(figures["transcribe"]) == {"asterisk", "flite-speech", "held-out-speech"}
    assert figures["transcribe"]["held-out-speech"]["clips"] == 4 * len(synthetic.CLEAR_VOICES)
    assert figures["transcribe"]["asterisk"]["judge_wer"] == 0.5
    kind = figures["questions"]["kind"]
    assert kind["clips"] == 12
    assert kind["guessing"] == pytest.approx(1 / 3)
    assert figures["questions"]["sound"]["guessing"] == 0.5
    assert figures["questions"]["sound"]["majority"] == 0.5
    assert figures["speech"]["clips"] == 3
    assert figures["speech"]["wer"]["original"] < figures["speech"]["wer"]["reconstructed"]
    assert 1 <= figures["codes"]["different"] <= 64
    json.dumps(figures, allow_nan=False)


def test_every_voice_has_a_figure_for_each_part_that_an_error_can_come_from(figures):
    speaking_figures = figures["speaking"]
    assert speaking_figures["sentences"] == 4
    assert set(speaking_figures["voices"]) == {voice.name for voice in synthetic.CLEAR_VOICES}
    for name, found in speaking_figures["voices"].items():
        assert list(found["systems"]) == ["original", "copy_synthesis", "reconstructed", "spoken"], name
        for rates in found["systems"].values():
            assert 0 < rates["wer_capped"] <= min(1, rates["wer"])
    assert "British" in speaking_figures["voices"]["pico-gb"]["asked"]
    assert speaking_figures["gender"] == {
        "judge": "stub judge", "clips": 4, "accuracy": 0.25, "by_gender": {"female": 0.5, "male": 0.0}, "not_told": 1,
        "cut": 1, "repaired": 0,
    }  # fmt: skip
    assert figures["not_measured"] == {}
    assert figures["package"]["bytes"] > 1000
    assert all(seconds > 0 for seconds in figures["package"]["first_sample_seconds"].values())


def test_what_cannot_be_measured_is_said_and_has_no_figure(layout, tmp_path, stubs, monkeypatch):
    monkeypatch.setattr(synthetic, "flite_program", no_synthesizer)
    bare = MiniLayout(tmp_path / "run")
    shutil.copytree(layout.root / "data", bare.root / "data")
    figures = evaluate_mini(
        layout.package, bare, judge="stub", clips_per_corpus=1, spoken_clips=1, held_out=1, voice_judge=None
    )
    assert set(figures["transcribe"]) == {"asterisk", "flite-speech"}
    for what in ("transcripts of held-out-speech", "original", "copy_synthesis", "reconstructed"):
        assert "no synthesizer for abacuses" in figures["not_measured"][what]
    assert "--voice_judge" in figures["not_measured"]["gender"]
    assert all(list(found["systems"]) == ["spoken"] for found in figures["speaking"]["voices"].values())
    assert "gender" not in figures["speaking"]
    write_card(layout, figures, {})
    card = (layout.package / "README.md").read_text(encoding="utf-8")
    assert "Not measured: gender, since" in card
    assert re.search(r"\| pico-gb \| [^|]*British[^|]* \| – \| – \| – \| [\d.]+ \([\d.]+\) \|", card)
    assert "heard by the SAP judge" not in card


def test_a_card_of_figures_from_before_shows_no_rows_that_were_not_measured(layout, figures):
    old = {name: found for name, found in figures.items() if name not in ("speaking", "package", "not_measured")}
    write_card(layout, old, {})
    card = (layout.package / "README.md").read_text(encoding="utf-8")
    assert "**Speaking sentences of open vocabulary**" not in card
    assert "It loads in" not in card
    assert "Not measured" not in card


def test_balanced_accuracy_is_no_better_for_the_commonest_answer():
    truths = ["a"] * 9 + ["b"]
    assert mini_evaluation._accuracy(["A."] * 10, truths) == 0.9
    assert mini_evaluation._balanced_accuracy(["a"] * 10, truths) == 0.5


def test_the_card_names_authors_licences_figures_and_limits(layout, figures):
    layout.notes.write_text("## This version\n\nTrained by candle light.\n", encoding="utf-8")
    write_card(layout, figures, {"data": 60.0, "lm": 3600.0})
    card = (layout.package / "README.md").read_text(encoding="utf-8")
    for clip in (
        clip for name in (*mini_data.CORPORA, mini_data.OPEN_SPEECH) for clip in load_manifest(layout.corpus(name))
    ):
        assert clip.attribution in card
        assert f"\n{clip.licence}:\n" in card
        assert f"- {clip.licence}: " in card.partition("The licences:")[2]
    assert "Permission is hereby granted" in card
    assert "Trained by candle light." in card
    assert "CC-BY-SA-3.0" in card
    assert "Whisper tiny.en" in card
    assert f"| asterisk | 2 | {percent(figures['transcribe']['asterisk']['wer'])} | 50.0 |" in card
    assert "| voice | asked for | as the synthesizer reads them | through the vocoder | through codes" in card
    assert "heard by the SAP judge in 25.0 % of 4" in card
    assert "Not measured" not in card
    assert "lm 60 min" in card
    assert "## Limits" in card
    assert percent(None) == "–"


# ------------------------------------------------------------------- the steps


@pytest.fixture
def recorded_steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done: list[str] = []
    for step in mini.STEPS:
        monkeypatch.setitem(mini.RUN, step, lambda layout, config, step=step: done.append(step))
    return done


def test_steps_run_once_in_an_order_that_gives_each_what_it_needs(tmp_path, recorded_steps):
    config = mini.MiniConfig(output_dir=str(tmp_path / "run"))
    mini.run_mini(config)
    assert recorded_steps == list(mini.STEPS)
    for position, step in enumerate(mini.STEPS):
        assert set(mini.NEEDS[step]) <= set(mini.STEPS[:position])
    recorded_steps.clear()
    mini.run_mini(config)
    assert recorded_steps == ["card"]


def test_one_step_runs_alone_and_again_but_not_before_what_it_needs(tmp_path, recorded_steps):
    output = str(tmp_path / "run")
    with pytest.raises(ValueError, match="step vocoder needs data first"):
        mini.run_mini(mini.MiniConfig(output_dir=output, only="vocoder"))
    for step in ("data", "vocoder", "vocoder"):
        mini.run_mini(mini.MiniConfig(output_dir=output, only=step))
    assert recorded_steps == ["data", "vocoder", "vocoder"]


def test_a_run_of_other_steps_is_left_alone(tmp_path, recorded_steps):
    """Its codes and models are of another tokenizer than the one that would be made beside them."""
    folder = tmp_path / "run"
    folder.mkdir()
    steps = json.dumps(dict.fromkeys(["data", "stage1", "stage2", "codes", "vocoder", "flow", "lm"], 1.0))
    (folder / "steps.json").write_text(steps)
    for only in (None, "tokenizer", "judge"):
        with pytest.raises(ValueError, match=r"other steps than mini has \(stage1, stage2\).*another output_dir"):
            mini.run_mini(mini.MiniConfig(output_dir=str(folder), only=only))
    assert not recorded_steps
    assert (folder / "steps.json").read_text() == steps


def test_a_failed_step_is_not_complete(tmp_path, recorded_steps, monkeypatch):
    def fail(layout: MiniLayout, config: mini.MiniConfig) -> None:
        raise subprocess.CalledProcessError(3, "accelerate")

    monkeypatch.setitem(mini.RUN, "tokenizer", fail)
    with pytest.raises(subprocess.CalledProcessError):
        mini.run_mini(mini.MiniConfig(output_dir=str(tmp_path / "run")))
    assert set(mini.read_steps(tmp_path / "run")) == {"data"}


def test_trainers_get_their_configs_data_and_lengths(tmp_path, monkeypatch):
    commands: list[list[str]] = []
    monkeypatch.setattr(
        "audiollm.training.recipes.launching.subprocess.run", lambda command, **options: commands.append(command)
    )
    monkeypatch.setattr(mini, "join_decoder", lambda *parts: None)
    layout = MiniLayout(tmp_path)
    config = mini.MiniConfig(output_dir=str(tmp_path), steps={"vocoder": 7})
    for step in ("vocoder", "flow", "lm", "judge"):
        mini.RUN[step](layout, config)
    for command in commands:
        assert Path(command[command.index("--config") + 1]).is_file()
        assert command[command.index("--resume") + 1] == "latest"
        assert str(tmp_path) in command[command.index("--output_dir") + 1]
    assert [command[-2:] for command in commands if "--max_steps" in command] == [["--max_steps", "7"]]
    with pytest.raises(ValueError, match="held_out=61: use 1 to 60"):
        mini.MiniConfig(held_out=61)
    with pytest.raises(ValueError, match="steps names tokenizer"):
        mini.MiniConfig(steps={"tokenizer": 3})


def test_the_shipped_sizes_fit_the_budget():
    """By arithmetic, so that a change of a config is noticed before hours of training."""
    rows = math.ceil((mini.MINI_LM.vocabulary_size + 8194) / 128) * 128
    size = mini.MINI_LM.hidden_size
    kv_size = size * mini.MINI_LM.num_key_value_heads // mini.MINI_LM.num_heads
    layer = 2 * size * size + 2 * size * kv_size + 3 * size * mini.MINI_LM.feed_forward_size
    lm = rows * size + mini.MINI_LM.num_layers * layer
    assert 2 * lm < 17_000_000


# -------------------------------------------------------------------- samples


def test_the_page_of_samples_plays_and_shows_every_version_of_every_clip(layout, stubs, tmp_path):
    size = mini_samples.write_samples(layout.package, layout, tmp_path / "samples", "stub")
    page = (tmp_path / "samples" / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in (tmp_path / "samples").iterdir()} - {"README.md"}
    assert size == folder_size(tmp_path / "samples")
    assert {name for name in files if name in page} == files
    assert set(re.findall(r"[\w-]+\.(?:png|opus)", page)) == files
    sentences = {name for name in files if name.startswith("sentence_") and name.endswith("_spoken.opus")}
    assert len(sentences) == len(FEW_HELD_OUT)
    for text in FEW_HELD_OUT:
        assert f"“{text}”" in page
    assert page.count("<audio") == len([name for name in files if name.endswith(".opus")])
    assert "heard: “press”" in page
    assert "Ann of" in page


def test_too_many_samples_are_not_written(layout, stubs, tmp_path, monkeypatch):
    monkeypatch.setattr(mini_samples, "BYTE_BUDGET", 1000)
    with pytest.raises(ValueError, match="more than 1,000; make them fewer"):
        mini_samples.write_samples(layout.package, layout, tmp_path / "samples", "stub")
    assert not list(tmp_path.iterdir())


def test_samples_are_installed_in_a_checkout_only(layout, tmp_path, monkeypatch):
    monkeypatch.setattr(mini_package.audiollm, "__file__", str(tmp_path / "audiollm" / "__init__.py"))
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "README.md").write_text("new")
    with pytest.raises(ValueError, match="in a checkout of the project only"):
        mini_package.install_samples(tmp_path / "page")
    (tmp_path / "docs" / "mini_samples").mkdir(parents=True)
    (tmp_path / "docs" / "mini_samples" / "old.opus").touch()
    target = mini_package.install_samples(tmp_path / "page")
    assert [path.name for path in target.iterdir()] == ["README.md"]
