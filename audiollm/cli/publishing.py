"""The command that uploads a model."""

from __future__ import annotations

from .console import write_line


def push(
    folder: str,
    repo_id: str,
    *,
    token: str | None = None,
    revision: str | None = None,
    tags: str | None = None,
    private: bool = False,
    commit_message: str = "Upload",
) -> None:
    """Upload a model to the Hub: an Audio-LLM, an adapter, an audio tokenizer, a decoder, or a part of one.

    Only the model's files go there, by their names: no checkpoints, no links, no other files. The example in its card
    then loads the repository.

    Args:
        folder: the model's folder, or that of the run that trained it.
        repo_id: owner/name, or a name under the token's owner; the repository is made if it is not there.
        token: of the Hub; better set in HF_TOKEN, or kept by `hf auth login`, as others see command lines.
        revision: branch to upload to, made if it is not there.
        tags: more tags for the card, such as speech,english.
        private: make a new repository private.
        commit_message: first line of the commit.
    """
    import tempfile
    from pathlib import Path

    from audiollm.folders import copy_model, trained_model
    from audiollm.tokenizer.checkpoints.hub import push_files, require_token

    require_token(repo_id, token)
    with tempfile.TemporaryDirectory() as staging:
        kind = copy_model(trained_model(folder), Path(staging))
        address = push_files(
            Path(staging),
            repo_id,
            kind,
            token=token,
            revision=revision,
            tags=[tag for tag in (tags or "").split(",") if tag],
            private=private or None,  # whether an existing one is, is not changed
            commit_message=commit_message,
        )
    write_line(f"uploaded {folder} to {address}")
