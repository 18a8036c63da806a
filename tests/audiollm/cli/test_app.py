"""The `audiollm` command: each sub-command on tiny checkpoints, good input and bad."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from safetensors.torch import load_file, save_file

from audiollm.cli.app import COMMANDS, build_parser, main, spelt_out
from audiollm.data.conversation.types import Conversation
from audiollm.data.files.lock import holds_nothing
from audiollm.generation.result import GenerationResult
from audiollm.modeling import AudioLLM
from audiollm.tokenizer.configuration import UniAudioTokenizerConfig
from audiollm.tokenizer.modeling import UniAudioTokenizer
from audiollm.tokenizer.supervision.model import SupervisedTokenizer
from audiollm.tokenizer.supervision.text_decoder import SapDecoder

CODEBOOK_SIZE = 64


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command that must fail with status 1 and one line; returns the line."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("audiollm: error: ")
    return message


def test_help_names_every_command_without_loading_torch() -> None:
    code = "import sys; from audiollm.cli.app import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(command in output for command in COMMANDS)
    assert output.strip().endswith("False")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_of_every_command_is_explained(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    described = COMMANDS[command].__doc__ or ""
    for line in described.split("Args:\n")[1].splitlines():
        words = line.strip().partition(": ")[2] or line.strip()
        assert words[:40] in shown


@pytest.mark.parametrize("option", ["--jsn", "--js"])
def test_misspelt_or_shortened_option_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", option])
    assert stopped.value.code == 2
    assert option[2:] in capsys.readouterr().err


def test_doctor_reports_every_requirement(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["required"]["torch"] == torch.__version__
    assert "cpu" in report["devices"]
    assert report["missing"] == []
    assert sorted(report["decoders"]) == ["PyAV", "ffmpeg", "libsndfile"]
    main(["doctor"])
    shown = capsys.readouterr().out
    assert "torch" in shown
    assert "libsndfile" in shown


def test_doctor_says_how_to_get_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("audiollm.environment.requires", lambda _: ["nosuchpackage>=1", "alsonone; extra == 'serve'"])
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", "--json"])
    assert stopped.value.code == 1
    report = json.loads(capsys.readouterr().out)
    assert report["missing"] == ["nosuchpackage is required: pip install nosuchpackage"]
    assert "decoders" not in report
    assert report["optional"]["alsonone"] == "not installed: pip install 'audiollm[serve]'"


def test_tokenize_writes_the_codes_that_the_library_gives(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folders / "codes.jsonl"
    main(["tokenize", str(folders / "clips"), str(output), "--audio-tokenizer", str(folders / "codec"), "--json"])
    report = json.loads(capsys.readouterr().out)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    tokenizer = UniAudioTokenizer.from_pretrained(folders / "codec")
    assert len(records) == 2
    assert report["tokens"] == sum(len(record["codes"]) for record in records) == 25 + 13
    for record in records:
        samples, sample_rate = sf.read(folders / "clips" / Path(record["audio"]).name, dtype="float32")
        assert record["codes"] == tokenizer.encode([torch.from_numpy(samples)], sample_rate).tolist()[0]


def test_tokenize_stops_at_a_bad_file_and_skips_it_on_request(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "clips"
    source.mkdir()
    (source / "a.wav").write_bytes((folders / "clips" / "a.wav").read_bytes())
    (source / "bad.wav").write_bytes((folders / "broken.wav").read_bytes())
    command = ["tokenize", str(source), str(tmp_path / "out.jsonl"), "--audio_tokenizer", str(folders / "codec")]
    assert "bad.wav" in fails(command, capsys)
    assert not (tmp_path / "out.jsonl").exists()
    main([*command, "--skip-bad"])
    assert "exists already" in fails([*command, "--skip-bad"], capsys)
    main([*command, "--skip-bad", "--overwrite"])
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
    assert "bad.wav" in (tmp_path / "out.jsonl.rejected.jsonl").read_text()


def test_extend_writes_a_checkpoint_that_loads(audio_llm: Path) -> None:
    model = AudioLLM.from_pretrained(audio_llm)
    assert model.vocabulary.codebook_size == CODEBOOK_SIZE
    assert json.loads((audio_llm / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]
    card = (audio_llm / "README.md").read_text()
    assert "- text LLM: llm. Licence: not given" in card
    assert "train it before it is used" in card


def test_extend_leaves_a_full_folder_alone(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in (folders / "clips").iterdir())
    command = [
        "extend",
        str(folders / "llm"),
        str(folders / "clips"),
        "--audio_tokenizer",
        str(folders / "codec"),
    ]
    assert "is not empty" in fails(command, capsys)
    assert sorted(path.name for path in (folders / "clips").iterdir()) == before


def test_a_folder_without_a_tokenizer_is_named(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tokenize", str(folders / "clips"), str(tmp_path / "o.jsonl"), "--audio_tokenizer", str(tmp_path)]
    assert str(tmp_path) in fails(command, capsys)


def test_extend_refuses_a_checkpoint_that_is_no_causal_lm(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "llm"
    shutil.copytree(folders / "llm", broken)
    weights = load_file(broken / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    command = ["extend", str(broken), str(tmp_path / "out"), "--audio_tokenizer", str(folders / "codec")]
    message = fails(command, capsys)
    assert f"{broken} does not hold the weights of a Qwen2ForCausalLM (1 missing: model.norm.weight)" in message
    assert not (tmp_path / "out").exists()


def test_inspect_data_refuses_what_training_refuses(
    audio_llm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.jsonl"
    for codes, reason in (([CODEBOOK_SIZE], f"data.jsonl:1: messages[0].content[0].codes[0]: {CODEBOOK_SIZE} is out"),
                          ([1] * 600, "long: ")):  # fmt: skip
        messages = [{"role": "user", "content": [{"type": "audio", "codes": codes}]}]
        messages.append({"role": "assistant", "content": "yes"})
        data.write_text(json.dumps({"id": "long", "messages": messages}) + "\n")
        message = fails(["inspect-data", str(data), "--model", str(audio_llm)], capsys)
        assert reason in message
    assert "the limit is 512" in message


def test_inspect_data_shows_each_token_with_its_role_and_loss(
    folders: Path, audio_llm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.jsonl"
    question = [{"type": "audio", "codes": [5, 6, 63]}, {"type": "text", "text": "Hi?"}]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "yes"}]
    data.write_text(json.dumps({"id": "one", "messages": messages}) + "\n")
    main(["inspect-data", str(data), "--model", str(audio_llm), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["code"] for row in rows if row["code"] is not None] == [5, 6, 63]
    assert "".join(row["text"] for row in rows if row["trained"]) == "yes<|im_end|>"
    assert {row["role"] for row in rows if row["trained"]} == {"assistant"}
    assert [row["position"] for row in rows] == list(range(len(rows)))
    main(["inspect-data", str(data), "--model", str(audio_llm)])
    shown = capsys.readouterr().out
    assert "code 63" in shown
    assert "assistant" in shown
    assert "records 0 to 0" in fails(["inspect-data", str(data), "--model", str(audio_llm), "--index", "1"], capsys)
    for limit in ("0", "-1"):
        assert "--limit=" in fails(["inspect-data", str(data), "--model", str(audio_llm), "--limit", limit], capsys)


def test_transcribe_answers_for_every_file(folders: Path, audio_llm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = [str(folders / "clips" / name) for name in ("a.wav", "b.wav")]
    main(["transcribe", *clips, "--model", str(audio_llm), "--max-new-tokens", "3", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["audio"] for line in lines] == clips
    assert [len(line["segments"]) for line in lines] == [1, 1]
    assert all(isinstance(line["text"], str) for line in lines)
    assert all(line["finish_reason"] in ("stop", "length") for line in lines)


def test_an_answer_or_a_sound_that_was_cut_says_so(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    clips = [str(folders / "clips" / name) for name in ("a.wav", "b.wav")]
    main(["transcribe", *clips, "--max-new-tokens", "1"])
    assert "a.wav and of 1 more was cut after 1 tokens; --max-new-tokens" in caplog.text
    capsys.readouterr()
    main(["describe", clips[0], "--max-new-tokens", "1", "--json"])
    assert json.loads(capsys.readouterr().out)["finish_reason"] == "length"
    for more in ([], ["--stream"]):
        caplog.clear()
        output = str(tmp_path / f"{len(more)}.wav")
        main(["speak", "Please hold.", "-o", output, "--max-seconds", "0.2", "--json", *more])
        assert json.loads(capsys.readouterr().out)["finish_reason"] == "length"
        assert "cut after 0.20 s; --max-seconds" in caplog.text


def test_the_side_that_is_heard_can_be_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    tone = 0.3 * np.sin(np.arange(16000) * 0.2)
    for name, channels in (("right.wav", [0 * tone, tone]), ("half.wav", [tone / 2])):
        sf.write(tmp_path / name, np.stack(channels, axis=1), 16000, subtype="FLOAT")
    answers = []
    for name, mono in (("right.wav", "first"), ("right.wav", "mean"), ("half.wav", "first")):
        caplog.clear()
        main(["describe", str(tmp_path / name), "--mono", mono, "--max-new-tokens", "8"])
        answers.append(capsys.readouterr().out)
        assert ("channel" in caplog.text) == (mono == "first" and name == "right.wav")
    assert answers[1] == answers[2]


def test_describe_asks_for_a_description_or_what_is_asked(
    folders: Path, audio_llm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answer = GenerationResult([torch.tensor([1])], ["A dog."], [[]], [[]], ["stop"])

    def chat(self: AudioLLM, conversation: Conversation, **options: Any) -> GenerationResult:
        asked.append(conversation.messages[0].content[1].text)
        return answer

    monkeypatch.setattr(AudioLLM, "chat", chat)
    clip = str(folders / "clips" / "a.wav")
    main(["describe", clip, "--model", str(audio_llm)])
    main(["describe", clip, "--model", str(audio_llm), "--question", "Who is speaking?"])
    assert capsys.readouterr().out == "A dog.\nA dog.\n"
    assert asked == ["Describe the recording.", "Who is speaking?"]


@pytest.mark.parametrize("is_run", [True, False])
def test_export_tokenizer_leaves_the_codes_as_they_are(
    is_run: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = UniAudioTokenizerConfig(
        num_mel_bins=80, d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        quantize_position=1, quantize_vocab_size=CODEBOOK_SIZE, pooling_kernel_size=2, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=32, vocab_size=64, max_target_positions=16, pad_token_id=0,
        bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    trained = SupervisedTokenizer(UniAudioTokenizer(config), SapDecoder(config)).eval()
    trained.save_pretrained(tmp_path / "run" / "model")
    source, output = str(tmp_path / "run" if is_run else tmp_path / "run" / "model"), tmp_path / "exported"
    (tmp_path / "run" / "model" / "README.md").write_text("its card")
    main(["export-tokenizer", source, str(output)])
    assert (output / "README.md").read_text() == "its card"
    assert "64 codes, 25 per second" in capsys.readouterr().out
    waveform = 0.1 * torch.randn(16000)
    exported = UniAudioTokenizer.from_pretrained(output)
    assert exported.config.quantize_encoder_only
    assert torch.equal(exported.encode(waveform, 16000).codes, trained.tokenizer.encode(waveform, 16000).codes)
    assert "not empty" in fails(["export-tokenizer", source, str(output)], capsys)
    again = fails(["export-tokenizer", str(output), str(tmp_path / "again")], capsys)
    assert f"{output} is exported already: use it as it is" in again
    trained.quantize = False
    trained.save_pretrained(tmp_path / "continuous")
    assert "without a quantizer" in fails(
        ["export-tokenizer", str(tmp_path / "continuous"), str(tmp_path / "other")], capsys
    )


def test_transcribe_and_a_bad_file(folders: Path, audio_llm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = str(folders / "clips" / "a.wav"), str(folders / "broken.wav")
    common = ["--model", str(audio_llm), "--max_new_tokens", "2"]
    assert "broken.wav" in fails(["transcribe", bad, good, *common], capsys)
    main(["transcribe", bad, good, *common, "--json", "--skip-bad"])
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert "broken.wav" in first["error"]
    assert second["audio"] == good
    assert "none of the 1 recordings could be transcribed" in fails(["transcribe", bad, *common, "--skip-bad"], capsys)


def test_describe_names_a_recording_that_is_too_long(
    folders: Path, audio_llm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, long = str(folders / "clips" / "a.wav"), tmp_path / "long.wav"
    sf.write(long, np.random.default_rng(0).normal(0, 0.1, 16000 * 25), 16000)
    common = ["--model", str(audio_llm), "--max_new_tokens", "2"]
    message = fails(["describe", str(long), good, *common], capsys)
    assert "long.wav: the prompt has" in message
    main(["describe", str(long), good, *common, "--json", "--skip-bad"])
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert "context holds 512" in first["error"]
    assert second["audio"] == good


def test_the_console_script_reports_an_error_in_one_line() -> None:
    script = Path(sys.executable).with_name("audiollm")
    done = subprocess.run([script, "transcribe", "a.wav", "--model", "./nowhere"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "nowhere" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_bad_first_file_leaves_nothing_behind(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tokenize", str(folders / "broken.wav"), str(tmp_path / "out" / "codes.jsonl")]
    assert "broken.wav" in fails([*command, "--audio_tokenizer", str(folders / "codec")], capsys)
    assert holds_nothing(tmp_path / "out")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["tokenize", str(folders / "clips"), str(tmp_path / "o.jsonl"), "--audio_tokenizer"]
    assert "--device cuda:0" in fails([*command, str(folders / "codec"), "--device", "cuda:0"], capsys)


def test_a_model_that_is_nowhere_is_first_said_to_be_no_folder_here(
    folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect.\nCheck your connection.")

    monkeypatch.setattr(AudioLLM, "from_pretrained", offline)
    message = fails(["transcribe", str(folders / "clips" / "a.wav"), "--model", "nosuch"], capsys)
    assert "there is no folder nosuch here, and the Hub did not give it: We couldn't connect. Check" in message


def test_mini_needs_no_extending_and_the_hub_is_not_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(["extend", "mini", str(tmp_path / "out")], capsys)
    assert "mini is an Audio-LLM already: train it as it is (audiollm train --model mini" in message


@pytest.mark.parametrize("given", [["-o", "out"], ["-o=out"], ["out"]])
def test_an_output_given_by_its_place_may_be_given_as_an_option(given: list[str]) -> None:
    for before in (["tokenize", "in", *given, "--shard", "0"], ["tokenize", *given, "in"]):
        if given == ["out"] and before[1] == "out":
            continue
        parsed = build_parser().parse_args(spelt_out(before))
        assert (parsed.tokenize.source, parsed.tokenize.output) == (["in"], "out")


def test_options_that_do_not_exist_are_quoted_as_they_were_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tokenize", "in", "out", "--audio-rot", "x"])
    assert "--audio-rot" in capsys.readouterr().err


FILLED = {  # a command that writes → its words; what stands at the output is refused before anything else is looked at
    "convert-data": ["no.jsonl", "@out.jsonl"],
    "tokenize": ["no.jsonl", "@out.jsonl"],
    "extend": ["no-llm", "@folder"],
    "speech-data": ["no.jsonl", "@out.jsonl"],
    "sentence-data": ["no.jsonl", "@out.jsonl"],
    "label": ["no.jsonl", "@out.jsonl"],
    "audit-labels": ["no.jsonl", "@folder"],
    "score-sap": ["no.jsonl", "no.jsonl", "--output", "@out.json"],
    "transcribe": ["@in.wav", "--model", "no-model", "--output", "@out.jsonl"],
    "describe": ["@in.wav", "--model", "no-model", "--output", "@out.txt"],
    "speak": ["Hi.", "--model", "no-model", "--output", "@out.wav"],
    "generate-audio": ["rain", "--model", "no-model", "--output", "@out.wav"],
    "reconstruct": ["no.wav", "@out.wav", "--audio-tokenizer", "no-tokenizer"],
    "export": ["no-model", "@folder"],
    "export-tokenizer": ["no-run", "@folder"],
    "convert": ["no-decoder", "@folder"],
    "report": ["no-results", "--output", "@out.md"],
    "compare-results": ["no.json", "no.json", "--output", "@out.json"],
}


def test_every_command_that_writes_is_listed_here() -> None:
    writes = {
        name
        for name, function in COMMANDS.items()
        if {"output", "output_dir"} & inspect.signature(function).parameters.keys()
    }
    # chat numbers its files so that none is replaced; compare goes on in its folder, and refuses any other.
    assert writes - {"chat", "compare"} == FILLED.keys()


@pytest.mark.parametrize("command", FILLED)
def test_nothing_that_exists_is_replaced_unasked(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    sf.write(tmp_path / "in.wav", np.zeros(1600), 16000)
    names = ["out.jsonl", "out.json", "out.txt", "out.wav", "out.md", "folder/audit.csv", "folder/model.safetensors"]
    for name in names:
        (tmp_path / name).write_text("mine")
    words = [str(tmp_path / word[1:]) if word.startswith("@") else word for word in FILLED[command]]
    message = fails([command, *words], capsys)
    assert "set --overwrite" in message or "is not empty; name a new folder" in message
    assert all((tmp_path / name).read_text() == "mine" for name in names)


@pytest.mark.parametrize(
    ("command", "ending"),
    [
        (name, ending)
        for name in ("tokenize", "label", "speech-data")
        for ending in ("", ".json", ".csv", ".JSONL", ".wav")
    ]
    + [("label", ".parquet"), ("speech-data", ".parquet")],
)
def test_endings_that_say_something_else_than_what_is_written_are_refused(
    command: str, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"out{ending}"
    message = fails([command, "no.jsonl", str(output)], capsys)
    assert f"{output} {'ends in ' + ending if ending else 'has no ending'}; records are written as .jsonl" in message
    assert not list(tmp_path.iterdir())


def test_a_clip_with_codes_is_sent_to_the_command_that_makes_records_of_it(
    folders: Path, audio_llm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "codes.jsonl"
    main(["tokenize", str(folders / "clips" / "a.wav"), str(source), "--audio-tokenizer", str(folders / "codec")])
    assert "audiollm speech-data" in fails(["inspect-data", str(source), "--model", str(audio_llm)], capsys)
