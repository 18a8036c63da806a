"""Spoken lists and reconstructions are made, judged, counted and resumed; stand-ins speak and listen."""

from __future__ import annotations

import dataclasses
import http.server
import json
import math
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import soundfile as sf
import torch
from torch import Tensor

from audiollm.benchmarks import reconstruction, seed_tts
from audiollm.benchmarks.harness.actions import run_action
from audiollm.benchmarks.speech.judges.judging import SpeechJudges, SpokenRecording
from audiollm.benchmarks.speech.judges.mos import PREDICTORS, load_predictor
from audiollm.benchmarks.speech.judges.recognizers import RECOGNIZERS, TranscriptionEndpoint, load_recognizer
from audiollm.benchmarks.speech.seed_tts_meta import SpeechItem, read_meta, scored_lines
from audiollm.benchmarks.speech.synthesis import AudioLLMSpeech
from audiollm.data.audio.reading import load_audio
from audiollm.data.audio.sources import AudioError
from audiollm.data.audio.writing import save_audio
from audiollm.data.files.lock import locked_folder
from audiollm.data.voices import encoders as speakers
from audiollm.data.voices.encoders import register_speaker_encoder
from audiollm.mini import mini_folder
from audiollm.modeling import AudioLLM
from audiollm.tokenizer.base import AudioTokenizer, Codes

GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden" / "seed_tts_wer" / "meta_lines.json"
META_CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]

RATE = 16000
STAND_IN = "stand-in"
ALPHABET = "abcdefghijklmnopqrstuvwxyz "
TONE_SAMPLES = 400


def spell(text: str) -> Tensor:
    """A text as one level per letter, which the stand-in recognizer can read back."""
    levels = [(ALPHABET.index(letter) + 1) / 40 for letter in text.lower() if letter in ALPHABET]
    return torch.tensor(levels).repeat_interleave(TONE_SAMPLES)


def read(waveform: Tensor) -> str:
    letters = (waveform[TONE_SAMPLES // 2 :: TONE_SAMPLES] * 40).round().long() - 1
    return "".join(ALPHABET[letter] if 0 <= letter < len(ALPHABET) else "?" for letter in letters.tolist())


class Reader:
    """Reads what :func:`spell` wrote; counts what it is given."""

    def __init__(self) -> None:
        self.source = STAND_IN
        self.num_heard = 0

    def transcribe(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[str]:
        self.num_heard += len(waveforms)
        return [read(waveform) for waveform in waveforms]


class LevelEncoder:
    """The voice is the mean level; silence has none."""

    embedding_size = 2

    def embed(self, waveform: Tensor, sample_rate: int) -> Tensor:
        if not bool(waveform.any()):
            raise ValueError("there is no voice in silence")
        angle = float(waveform.mean()) * math.pi
        return torch.tensor([math.cos(angle), math.sin(angle)])


class LengthPredictor:
    """The longer, the better."""

    name = STAND_IN

    def predict(self, waveform: Tensor, sample_rate: int) -> float | None:
        return len(waveform) / sample_rate if len(waveform) else None


def register(reader: Reader) -> None:
    """Makes the stand-ins known under their name."""
    RECOGNIZERS.register(STAND_IN, lambda language, device: reader, replace=True)
    PREDICTORS.register(STAND_IN, lambda device: LengthPredictor(), replace=True)
    register_speaker_encoder(STAND_IN, lambda device: LevelEncoder(), replace=True)


@pytest.fixture
def reader(monkeypatch):
    monkeypatch.setattr(speakers._encoders, "_factories", dict(speakers._encoders._factories))
    reader = Reader()
    register(reader)
    return reader


# --- lists ------------------------------------------------------------------------------------------------------------

REFUSED = {"two_fields_first", "two_fields_after_four", "blank_line"}


@pytest.mark.parametrize("case", META_CASES, ids=[case["case"] for case in META_CASES])
def test_lists_are_read_as_published_or_refused_by_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("set").mkdir()
    Path("out").mkdir()
    for name in case["existing_wavs"]:
        (Path("out") / name).touch()
    path = Path("set") / "meta.lst"
    path.write_text("\n".join(case["meta"]) + "\n", encoding="utf-8")
    if case["case"] in REFUSED:
        number = 1 if case["case"] == "two_fields_first" else 2
        with pytest.raises(ValueError, match=f"line {number}: "):
            read_meta(path)
        return
    lines, missing = scored_lines(read_meta(path).items, "out")
    assert lines == case["pairs"]
    assert len(lines) + len(missing) == len(case["meta"])


def test_lines_without_a_prompt_are_taken_when_similarity_is_left_out(tmp_path):
    case = next(case for case in META_CASES if case["case"] == "two_fields_after_four")
    (tmp_path / "meta.lst").write_text("\n".join(case["meta"]), encoding="utf-8")
    items = read_meta(tmp_path / "meta.lst", allow_missing_prompts=True).items
    assert items[1] == SpeechItem("u2", "Two words.")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u1|a|b|c|d|e", "has 6 fields"),
        ("words", "has 1 fields"),
        ("u1|pt|p.wav|", "its text is empty"),
        ("|pt|p.wav|One.", "its id is empty"),
        ("u1|pt||One.", "its prompt recording is empty"),
        ("../u1|pt|p.wav|One.", "is no file name"),
        ("u0|pt|p.wav|One.", "is that of line 1"),
    ],
)
def test_bad_lines_are_refused_by_number(tmp_path, line, message):
    (tmp_path / "meta.lst").write_text(f"u0|pt|p.wav|Zero.\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"line 2: .*{message}"):
        read_meta(tmp_path / "meta.lst")


# --- spoken lists -----------------------------------------------------------------------------------------------------

TEXTS = {"u0": "one two", "u1": "three four", "u2": "five six"}


class Speller:
    """Spells texts; says the first letters only of ``cut``, and nothing of ``silent``."""

    def __init__(self, cut: str | None = None, silent: str | None = None) -> None:
        self.cut, self.silent = cut, silent
        self.said: list[tuple[str, int]] = []

    def describe(self) -> dict[str, object]:
        return {"model": "speller"}

    def say(self, item: SpeechItem, seed: int) -> tuple[Tensor, int]:
        self.said.append((item.id, seed))
        if item.id == self.silent:
            raise RuntimeError("out of memory")
        return spell(item.text[:3] if item.id == self.cut else item.text), RATE


@pytest.fixture
def config_of(tmp_path):
    """Makes a configuration for a list of ``TEXTS`` whose prompts say the same."""
    (tmp_path / "set").mkdir()
    for name, text in TEXTS.items():
        save_audio(tmp_path / "set" / f"{name}.wav", spell(text), RATE)
    lines = [f"{name}|pt|{name}.wav|{text}|{name}.wav" for name, text in TEXTS.items()]
    (tmp_path / "set" / "meta.lst").write_text("\n".join(lines), encoding="utf-8")

    def make(**changes):
        settings = {
            "meta": str(tmp_path / "set" / "meta.lst"),
            "language": "en",
            "output_dir": str(tmp_path / "out"),
            "asr": STAND_IN,
            "similarity": STAND_IN,
            "mos": STAND_IN,
        }
        return seed_tts.SeedTTSConfig(**settings | changes)

    return make


def test_each_seed_is_a_run_and_mean_and_spread_are_told(reader, config_of, tmp_path):
    result = seed_tts.measure(config_of(seeds=(0, 1)), Speller(cut="u1"))
    # "thr" for "three four": one substitution and one deletion of two words.
    assert [run["wer"] for run in result["runs"]] == pytest.approx([1 / 3, 1 / 3])
    assert result["summary"]["wer"]["mean"] == pytest.approx(1 / 3)
    assert result["summary"]["wer"]["spread"] == pytest.approx(0)
    assert result["ground_truth"]["wer"] == 0
    assert result["ground_truth"]["similarity"]["mean"] == pytest.approx(1, abs=1e-3)
    assert result["judges"] == {
        "asr": STAND_IN, "language": "en", "speaker_encoder": STAND_IN, "mos_predictor": STAND_IN,
    }  # fmt: skip
    assert result["runs"][0]["mos"]["mean"] == pytest.approx((7 + 3 + 8) * TONE_SAMPLES / RATE / 3)
    kept = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert kept["summary"] == result["summary"]
    pairs = (tmp_path / "out" / "seed1" / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(pairs[1]) == {"id": "u1", "hypothesis": "thr", "reference": "three four"}
    assert load_audio(tmp_path / "out" / "seed1" / "wavs" / "u1.wav")[1] == RATE


def test_what_an_utterance_gets_as_seed_depends_on_the_run_and_its_id_alone(reader, config_of):
    speller = Speller()
    seed_tts.measure(config_of(seeds=(0, 1)), speller)
    assert len({seed for _, seed in speller.said}) == 6
    alone = Speller()
    seed_tts.measure(config_of(seeds=(1,), output_dir=str(config_of().output_dir) + "2"), alone)
    assert alone.said == speller.said[3:]


def test_failures_are_tried_again_counted_and_left_for_the_next_run(reader, config_of, tmp_path):
    broken = Speller(silent="u2")
    run = seed_tts.measure(config_of(), broken)["runs"][0]
    assert [name for name, _ in broken.said] == ["u0", "u1", "u2", "u2"]
    assert run["missing"] == ["u2"]
    assert run["wer"] == 0
    assert run["wer_missing_as_wrong"] == pytest.approx(1 / 3)
    failures = (tmp_path / "out" / "seed0" / "wavs.rank0.failures.jsonl").read_text(encoding="utf-8")
    assert "RuntimeError: out of memory" in failures
    heard, mended = reader.num_heard, Speller()
    run = seed_tts.measure(config_of(), mended)["runs"][0]
    assert [name for name, _ in mended.said] == ["u2"]
    assert (run["missing"], run["wer"]) == ([], 0)
    assert reader.num_heard == heard + 1  # verdicts are kept too


def test_a_half_written_verdict_is_asked_for_again(reader, config_of, tmp_path):
    first = seed_tts.measure(config_of(), Speller(cut="u0"))
    path = tmp_path / "out" / "seed0" / "verdicts.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    heard = reader.num_heard
    assert seed_tts.measure(config_of(), Speller())["runs"] == first["runs"]
    assert reader.num_heard == heard + 1


def test_verdicts_of_other_judges_wait_and_are_taken_up_again(tmp_path, monkeypatch):
    save_audio(tmp_path / "u0.wav", torch.zeros(800), RATE)
    recordings, kept = [SpokenRecording("u0", str(tmp_path / "u0.wav"))], tmp_path / "verdicts.jsonl"
    judged = []
    judge_batch = SpeechJudges._judge_batch
    monkeypatch.setattr(SpeechJudges, "_judge_batch", lambda *given: judged.append(1) or judge_batch(*given))
    for language in ("en", "zh", "en", "zh", "en"):
        judges = SpeechJudges("none", "none", "none", language=language)
        assert [verdict.id for verdict in judges.judge(recordings, kept)] == ["u0"]
        assert json.loads(kept.read_text(encoding="utf-8").splitlines()[0])["language"] == language
    assert len(judged) == 2


def test_another_system_in_the_same_folder_is_refused(reader, config_of):
    seed_tts.measure(config_of(), Speller())
    other = Speller()
    other.describe = lambda: {"model": "another"}
    with pytest.raises(ValueError, match=r"begun with another system\.model \(speller, now another\)"):
        seed_tts.measure(config_of(), other)


@pytest.mark.parametrize("changed", ["model", "decoder"])
def test_a_model_that_was_trained_on_is_another_system(changed, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(mini_folder(), copy)
    before = AudioLLMSpeech(AudioLLM.from_pretrained(copy), str(copy)).describe()
    assert before == AudioLLMSpeech(AudioLLM.from_pretrained(copy), str(copy)).describe()
    weights = {"model": copy, "decoder": copy / "audio_tokenizer" / "decoder"}[changed] / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    after = AudioLLMSpeech(AudioLLM.from_pretrained(copy), str(copy)).describe()
    key = {"model": "model_revision", "decoder": "decoder_fingerprint"}[changed]
    assert {name for name in before if before[name] != after[name]} == {key}


def test_two_processes_on_one_folder_are_refused(reader, config_of, tmp_path):
    with locked_folder(tmp_path / "out"), pytest.raises(ValueError, match="is being written by another process"):
        seed_tts.measure(config_of(), Speller())


def test_recordings_of_anybody_are_judged_without_a_model(reader, config_of, tmp_path):
    (tmp_path / "theirs").mkdir()
    save_audio(tmp_path / "theirs" / "u0.wav", spell(TEXTS["u0"]), RATE)
    result = seed_tts.measure(config_of(wavs=str(tmp_path / "theirs")))
    assert result["runs"][0]["missing"] == ["u1", "u2"]
    assert result["runs"][0]["wer"] == 0


def test_silence_has_no_likeness_and_is_heard_as_nothing(reader, config_of, tmp_path):
    (tmp_path / "theirs").mkdir()
    for name in TEXTS:
        save_audio(tmp_path / "theirs" / f"{name}.wav", torch.zeros(800), RATE)
    run = seed_tts.measure(config_of(wavs=str(tmp_path / "theirs")))["runs"][0]
    assert run["similarity"] == {"mean": None, "variance": None, "n": 0}
    assert run["wer"] == 1


def test_judges_can_be_left_out(reader, config_of):
    result = seed_tts.measure(config_of(asr="none", similarity="none", mos="none"), Speller())
    assert result["runs"][0]["wer"] is None
    assert result["summary"]["mos"]["mean"] is None


def test_a_missing_prompt_is_named_before_anything_is_spoken(reader, config_of, tmp_path):
    (tmp_path / "set" / "u1.wav").unlink()
    speller = Speller()
    with pytest.raises(OSError, match=r"1 recordings of .* are missing, such as .*u1\.wav"):
        seed_tts.measure(config_of(), speller)
    assert speller.said == []


@pytest.mark.parametrize("seeds", [(), (0, 0)])
def test_bad_seeds_are_refused(config_of, seeds):
    with pytest.raises(ValueError, match="each once, such as 0,1,2"):
        config_of(seeds=seeds)


@pytest.mark.parametrize("seeds", ["a", "1;2"])
def test_seeds_that_are_no_numbers_are_refused(seeds, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_action(
            seed_tts.ACTIONS,
            name="x",
            arguments=["--meta", "m", "--language", "en", "--output-dir", "o", "--seeds", seeds],
        )
    assert "seeds" in capsys.readouterr().err


# --- reconstruction ---------------------------------------------------------------------------------------------------


class LevelTokenizer(AudioTokenizer):
    """One code per letter of the spelling; ``lost`` codes become the next one."""

    sample_rate = output_sample_rate = RATE
    frame_rate = RATE / TONE_SAMPLES
    num_codebooks = 1
    codebook_size = 64
    max_segment_seconds = None
    can_decode = True
    licence_note = "test"

    def __init__(self, lost: int | None = None) -> None:
        self.lost = lost
        self.num_encoded = 0

    def fingerprint(self) -> str:
        return f"level {self.lost}"

    def encode(self, waveforms, sample_rate):
        self.num_encoded += len(waveforms)
        return Codes.from_list([(one[200::TONE_SAMPLES] * 40).round().long()[None] for one in waveforms])

    def decode(self, codes, speaker=None, prompt=None, **options):
        kept = [codes[index][0] for index in range(len(codes))]
        kept = [torch.where(one == self.lost, one + 1, one) if self.lost is not None else one for one in kept]
        return [(one / 40).repeat_interleave(TONE_SAMPLES) for one in kept]


@pytest.fixture
def reconstruction_config(tmp_path):
    rows = []
    for name, text in TEXTS.items():
        save_audio(tmp_path / f"{name}.wav", spell(text), RATE)
        rows.append({"id": name, "audio": f"{name}.wav", "text": text, "split": "test"})
    rows.append({"id": "other", "audio": "u0.wav", "split": "train"})
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return reconstruction.ReconstructionConfig(
        audio_tokenizers=("unused",), data=str(tmp_path / "clips.jsonl"), split="test",
        output_dir=str(tmp_path / "out"), asr=STAND_IN, similarity=STAND_IN, mos=STAND_IN, metrics=("mel_distance",),
    )  # fmt: skip


def test_tokenizers_stand_side_by_side_with_the_ground_truth(reader, reconstruction_config, tmp_path):
    letter_e = ALPHABET.index("e") + 1
    tokenizers = {"keeps": LevelTokenizer(), "loses": LevelTokenizer(lost=letter_e)}
    rows = reconstruction.measure(reconstruction_config, tokenizers)["rows"]
    assert list(rows) == ["ground truth", "keeps", "loses"]
    assert [row["wer"] for row in rows.values()] == pytest.approx([0, 0, (1 / 2 + 1 / 2 + 1 / 2) / 3])
    assert rows["ground truth"]["mel_distance"] == 0
    assert rows["keeps"]["mel_distance"] < rows["loses"]["mel_distance"]
    assert rows["keeps"]["bitrate_bps"] == 40 * 6
    assert rows["ground truth"]["similarity"]["mean"] == pytest.approx(1)
    again = {"keeps": LevelTokenizer(), "loses": LevelTokenizer(lost=letter_e)}
    assert reconstruction.measure(reconstruction_config, again)["rows"] == rows
    assert again["keeps"].num_encoded == 0
    with pytest.raises(ValueError, match="begun with another fingerprint"):
        reconstruction.measure(reconstruction_config, {"keeps": LevelTokenizer(lost=1)})


def test_recordings_that_cannot_be_made_are_counted_and_the_others_kept(reader, reconstruction_config):
    class Breaks(LevelTokenizer):
        def decode(self, codes, speaker=None, prompt=None, **options):
            if codes.codes.shape[-1] == len(TEXTS["u1"]):
                raise RuntimeError("out of memory")
            return super().decode(codes)

    row = reconstruction.measure(reconstruction_config, {"breaks": Breaks()})["rows"]["breaks"]
    assert row["missing"] == ["000001"]
    assert row["failures"] == {"000001": "RuntimeError: out of memory"}
    assert row["wer"] == 0
    assert row["wer_missing_as_wrong"] == pytest.approx(1 / 3)


def test_names_of_tokenizers_must_differ():
    assert reconstruction.tokenizer_names(("mini", "b=folder/x")) == {"mini": "mini", "b": "folder/x"}
    with pytest.raises(ValueError, match="name=folder"):
        reconstruction.tokenizer_names(("a/x", "b/x"))


# --- judges -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def transcription_server():
    """An OpenAI-compatible server of transcriptions; keeps the bodies of requests."""
    bodies = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            reply = json.dumps({"text": " hello "} if self.path.endswith("/audio/transcriptions") else {}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    server.shutdown()
    server.server_close()


def test_an_endpoint_transcribes(transcription_server):
    pytest.importorskip("openai")
    url, bodies = transcription_server
    recognizer = load_recognizer(f"{url}#whisper-1", language="en")
    assert recognizer.transcribe([torch.ones(8000) / 2, torch.zeros(10)], 8000) == ["hello", ""]
    assert len(bodies) == 1  # too short a recording is not sent
    assert b"whisper-1" in bodies[0]
    assert b"RIFF" in bodies[0]
    with pytest.raises(ValueError, match="names no model"):
        TranscriptionEndpoint(url)


def test_unknown_judges_are_refused_by_name():
    with pytest.raises(ValueError, match=r"no MOS predictor 'nonsense'; there are .*dnsmos"):
        load_predictor("nonsense")
    with pytest.raises(ValueError, match="there is a MOS predictor 'dnsmos' already"):
        PREDICTORS.register("dnsmos", lambda device: LengthPredictor())


@pytest.mark.hub
def test_dnsmos_rates_speech_above_noise():
    pytest.importorskip("onnxruntime")
    predictor = load_predictor()
    noise = torch.randn(RATE, generator=torch.Generator().manual_seed(0)) / 10
    speech, rate = load_audio(Path(__file__).parents[2] / "fixtures" / "parity" / "extract_audio_token" / "8k.wav")
    assert predictor.predict(noise, RATE) < 1.5 < 2.5 < predictor.predict(speech, rate) < 5
    assert predictor.predict(torch.zeros(RATE), RATE) is None
    # Shorter than a window: doubled until it is long enough, so that twice the same is the same.
    assert predictor.predict(torch.cat([noise, noise]), RATE) == pytest.approx(predictor.predict(noise, RATE), abs=1e-3)


def test_a_folder_goes_on_only_with_the_channel_it_was_begun_with(reader, reconstruction_config):
    tokenizers = {"keeps": LevelTokenizer()}
    assert reconstruction.measure(reconstruction_config, tokenizers)["config"]["mono"] == "first"
    with pytest.raises(ValueError, match=r"begun with another mono \(None, now mean\)"):
        reconstruction.measure(dataclasses.replace(reconstruction_config, mono="mean"), tokenizers)


def test_the_channel_that_judges_hear_is_one_of_their_facts(tmp_path):
    waveform = torch.sin(torch.arange(RATE) * 0.3)
    channels = torch.stack([torch.full_like(waveform, torch.nan), waveform], dim=1)
    sf.write(tmp_path / "u0.wav", channels.numpy(), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="nan"):
        SpeechJudges("none", "none", "none", mono="first").judge(
            [SpokenRecording("u0", str(tmp_path / "u0.wav"))], tmp_path / "verdicts.jsonl"
        )
    assert SpeechJudges("none", "none", "none", mono="first").names["mono"] == "first"
    assert "mono" not in SpeechJudges("none", "none", "none").names
