"""Uploads to the Hub, against one that keeps what it is given: what goes there, and what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, RepoUrl

import audiollm.tokenizer.checkpoints.hub as hub
from audiollm import AudioLLM, UniAudioTokenizer, WaveformDecoder
from audiollm.cli.app import main
from audiollm.mini import AUDIO_TOKENIZER_FOLDER, mini_folder

MODEL_FILES = {
    "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
    "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    "audio_tokenizer/config.json", "audio_tokenizer/model.safetensors", "audio_tokenizer/preprocessor_config.json",
    "audio_tokenizer/decoder/config.json", "audio_tokenizer/decoder/model.safetensors",
}  # fmt: skip


class FakeHub:
    """Stands for ``HfApi``: remembers repositories, branches and files."""

    def __init__(self) -> None:
        self.tokens: list[Any] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.files: dict[str, bytes] = {}

    def __call__(self, token: Any = None) -> FakeHub:
        self.tokens.append(token)
        return self

    def create_repo(self, repo_id: str, **options: Any) -> RepoUrl:
        self.calls.append(("create_repo", options))
        return RepoUrl(f"https://huggingface.co/{repo_id if '/' in repo_id else 'me/' + repo_id}")

    def create_branch(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_branch", options))

    def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> None:
        self.calls.append(("upload_folder", {"repo_id": repo_id, **options}))
        assert not any(path.is_symlink() for path in folder_path.rglob("*"))
        files = (path for path in folder_path.rglob("*") if path.is_file())
        self.files = {str(path.relative_to(folder_path)): path.read_bytes() for path in files}

    @property
    def card(self) -> ModelCard:
        return ModelCard(self.files["README.md"].decode())


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr(hub, "HfApi", fake)
    monkeypatch.setattr(hub, "get_token", lambda: None)
    return fake


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run whose model is mini, with things in it that belong to nobody else."""
    model = tmp_path / "run" / "model"
    AudioLLM.from_pretrained().save_pretrained(model)
    (model / "README.md").write_text('---\nlicense: cc-by-sa-3.0\ntags: [audiollm]\n---\nload(".")\n')
    (model / "notes.txt").write_text("mine")
    (model / "optimizer.pt").write_bytes(b"state")
    (model / "checkpoints").mkdir()
    (model / "checkpoints" / "config.json").write_text("{}")
    return model.parent


def test_every_kind_of_model_is_uploaded_with_all_options(fake_hub: FakeHub) -> None:
    codec = UniAudioTokenizer.from_pretrained(mini_folder() / AUDIO_TOKENIZER_FOLDER)
    decoder = WaveformDecoder.from_pretrained(mini_folder() / AUDIO_TOKENIZER_FOLDER)
    for model, mark in (
        (AudioLLM.from_pretrained(), "processor_config.json"),
        (codec, "config.json"),
        (decoder, "config.json"),
    ):
        fake_hub.calls.clear()
        address = model.push_to_hub(
            "thing", token="hf_secret", revision="trial", tags=["speech"], private=True, commit_message="First"
        )
        assert address == "https://huggingface.co/me/thing"
        assert fake_hub.tokens[-1] == "hf_secret"
        assert fake_hub.calls == [
            ("create_repo", {"private": True, "exist_ok": True}),
            ("create_branch", {"branch": "trial", "exist_ok": True}),
            (
                "upload_folder",
                {
                    "repo_id": "me/thing", "revision": "trial", "commit_message": "First", "commit_description": None,
                    "create_pr": False,
                },
            ),
        ]  # fmt: skip
        assert {"README.md", "model.safetensors", mark} <= fake_hub.files.keys()
        assert "speech" in fake_hub.card.data.tags
        assert 'from_pretrained("me/thing"' in fake_hub.card.text


def test_an_upload_can_be_loaded(fake_hub: FakeHub, tmp_path: Path) -> None:
    AudioLLM.from_pretrained().push_to_hub("me/thing", token="hf_secret")
    assert fake_hub.files.keys() == MODEL_FILES
    for name, content in fake_hub.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    loaded = AudioLLM.from_pretrained(tmp_path)
    assert (
        loaded.processor.audio_tokenizer.fingerprint()
        == AudioLLM.from_pretrained().processor.audio_tokenizer.fingerprint()
    )


def test_the_command_uploads_what_belongs_to_a_runs_model_and_nothing_else(
    fake_hub: FakeHub, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["push", str(run_folder), "me/thing", "--token", "hf_secret", "--tags", "speech,english", "--private"])
    assert capsys.readouterr().out == f"uploaded {run_folder} to https://huggingface.co/me/thing\n"
    assert fake_hub.files.keys() == MODEL_FILES
    assert fake_hub.card.data.license == "cc-by-sa-3.0"
    assert fake_hub.card.data.tags == ["audiollm", "speech", "english"]
    assert fake_hub.card.text.strip() == 'load("me/thing")'
    assert 'load(".")' in (run_folder / "model" / "README.md").read_text()  # the folder's own stays


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    return line


def test_without_a_token_nothing_is_done_and_the_cure_is_said(
    fake_hub: FakeHub, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = fails(["push", str(run_folder), "me/thing"], capsys)
    assert line.startswith("audiollm: error: me/thing cannot be uploaded without a token: set HF_TOKEN")
    with pytest.raises(ValueError, match="hf auth login"):
        AudioLLM.from_pretrained().push_to_hub("me/thing")
    assert fake_hub.calls == []


def test_what_the_hub_refuses_is_said_in_one_line(
    fake_hub: FakeHub, run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("403 Forbidden:\n\nYou don't have the rights")

    monkeypatch.setattr(fake_hub, "create_repo", refuse)
    line = fails(["push", str(run_folder), "me/thing", "--token", "x"], capsys)
    assert line == "audiollm: error: me/thing was not uploaded: 403 Forbidden: You don't have the rights"


def test_links_out_of_the_folder_and_what_is_no_model_are_refused(
    fake_hub: FakeHub, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").write_text("{}")
    (run_folder / "model" / "generation_config.json").unlink()
    (run_folder / "model" / "generation_config.json").symlink_to(tmp_path / "secret")
    assert "is a link that leads out of" in fails(["push", str(run_folder), "me/thing", "--token", "x"], capsys)
    (tmp_path / "empty").mkdir()
    assert "config.json" in fails(["push", str(tmp_path / "empty"), "me/thing", "--token", "x"], capsys)
    assert "is no folder" in fails(["push", str(tmp_path / "nowhere"), "me/thing", "--token", "x"], capsys)
    (tmp_path / "young" / "checkpoints").mkdir(parents=True)
    assert "has not left its model yet" in fails(["push", str(tmp_path / "young"), "me/thing", "--token", "x"], capsys)
    assert fake_hub.files == {}


def test_an_adapter_tells_no_folder_of_this_machine(fake_hub: FakeHub, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/someone/models/base", "r": 4}')
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    main(["push", str(adapter), "me/thing", "--token", "x"])
    assert fake_hub.files.keys() == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert b"/home" not in b"".join(fake_hub.files.values())
    assert json.loads(fake_hub.files["adapter_config.json"]) == {"base_model_name_or_path": "base", "r": 4}
