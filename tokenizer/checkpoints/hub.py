"""Uploads of models to the Hub: a folder with nothing but the model's files, its card told where it lies."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from huggingface_hub import HfApi, ModelCard, get_token
from huggingface_hub.errors import HfHubHTTPError

from .card import CARD_NAME, HERE, Base, Kind, is_hub_id, public_name, write_card
from .folders import read_json_object

_ADAPTER_CONFIG = "adapter_config.json"
# What its client of HTTP raises where nothing answers; which client that is depends on the Hub library's version.
_REFUSALS: tuple[type[Exception], ...] = (cast("type[Exception]", HfHubHTTPError.__bases__[0]), OSError)


def require_token(repo_id: str, token: str | bool | None) -> None:
    """Refuses an upload without a token, before anything is loaded or copied for it.

    Raises:
        ValueError: saying where one can be given.
    """
    if token is False or not (token if isinstance(token, str) else get_token()):
        raise ValueError(
            f"{repo_id} cannot be uploaded without a token: set HF_TOKEN, log in with `hf auth login`, or pass token "
            "(--token); https://huggingface.co/settings/tokens makes one that may write"
        )


def push_saved(save: Callable[[Path], None], repo_id: str, kind: Kind, **options: Any) -> str:
    """Uploads what a model saves; nothing is saved before a token is there.

    Args:
        save: writes the model into a folder.
        repo_id: as for `push_files`, as are the arguments that follow, what is returned, and what is raised.
        kind: of the model.
        options: ``token``, ``revision``, ``tags`` ….
    """
    require_token(repo_id, options.get("token"))
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        save(folder)
        return push_files(folder, repo_id, kind, **options)


def push_files(
    folder: Path,
    repo_id: str,
    kind: Kind,
    *,
    token: str | bool | None = None,
    revision: str | None = None,
    tags: Sequence[str] = (),
    private: bool | None = None,
    commit_message: str = "Upload",
    commit_description: str | None = None,
    create_pr: bool = False,
) -> str:
    """Uploads a folder to a repository, which is made if it is not there.

    Args:
        folder: a copy of the model's files alone; its card is changed.
        repo_id: ``owner/name``, or a name under the token's owner.
        kind: of the model; says what a card tells where there is none.
        token: of the Hub; None: the one that this machine is logged in with.
        revision: branch to upload to, made if it is not there; None: the main one.
        tags: more tags for the card.
        private: whether a new repository is; None: as the owner's settings have it.
        commit_message: first line of the commit.
        commit_description: more lines.
        create_pr: whether to propose the files instead of putting them there.

    Returns:
        The address of the repository.

    Raises:
        ValueError: without a token, for a name that the Hub does not take, or where it refuses or does not answer.
    """
    require_token(repo_id, token)
    try:
        api = HfApi(token=token)
        repository = api.create_repo(repo_id, private=private, exist_ok=True)
        _prepare_card(folder, repository.repo_id, kind, tags)
        _hide_places(folder / _ADAPTER_CONFIG)
        if revision is not None:
            api.create_branch(repository.repo_id, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repository.repo_id, folder_path=folder, revision=revision, commit_message=commit_message,
            commit_description=commit_description, create_pr=create_pr,
        )  # fmt: skip
    except _REFUSALS as error:
        raise ValueError(f"{repo_id} was not uploaded: {' '.join(str(error).split())}") from error
    return str(repository)


def _prepare_card(folder: Path, repo_id: str, kind: Kind, tags: Sequence[str]) -> None:
    """Lets the card's example load the repository, and adds tags."""
    path = folder / CARD_NAME
    if not path.is_file():
        write_card(folder, kind, title=public_name(repo_id), bases=_known_bases(folder))
    card = ModelCard.load(path, ignore_metadata_errors=True)
    card.text = card.text.replace(HERE, json.dumps(repo_id))
    card.data.tags = [*dict.fromkeys([*(card.data.tags or []), *tags])]
    card.save(path)


def _known_bases(folder: Path) -> list[Base] | None:
    """What a model without a card was made from: an adapter's settings tell it, nothing else does."""
    path = folder / _ADAPTER_CONFIG
    base = read_json_object(path).get("base_model_name_or_path") if path.is_file() else None
    return [Base("Audio-LLM", base)] if isinstance(base, str) else None


def _hide_places(adapter_config: Path) -> None:
    """An adapter names the folder that its base lay in: of another machine's folders only the name is told."""
    if not adapter_config.is_file():
        return
    values: dict[str, Any] = read_json_object(adapter_config)
    base = values.get("base_model_name_or_path")
    if isinstance(base, str) and not is_hub_id(base):
        values["base_model_name_or_path"] = public_name(base)
        adapter_config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
