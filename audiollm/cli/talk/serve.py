"""``audiollm serve``: an Audio-LLM behind OpenAI's HTTP interface."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Literal

from audiollm.cli.console import Precision, load_audio_llm, load_audio_tokenizer, settled

KEYS_VARIABLE = "AUDIOLLM_API_KEYS"
_RUNNING, _VLLM_RUNNING = 8, 64
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

logger = logging.getLogger(__name__)


def serve(
    model: str = "mini",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    engine: Literal["batching", "plain", "vllm"] = "batching",
    vllm_url: str | None = None,
    vllm_model: str | None = None,
    max_running: int | None = None,
    max_waiting: int = 64,
    deadline_seconds: float = 600.0,
    max_upload_megabytes: int = 25,
    max_decoded_megabytes: int = 256,
    max_upload_seconds: float = 600.0,
    max_channels: int = 8,
    max_text_characters: int = 4096,
    max_part_characters: int = 200,
    max_tokens: int = 4096,
    max_prompt_tokens: int | None = None,
    idle_seconds: float = 60.0,
    max_connections_per_key: int = 256,
    max_session_seconds: float = 3600.0,
    max_session_items: int = 1000,
    max_turn_seconds: float = 300.0,
    turn_detector: Literal["auto", "level", "silero"] = "auto",
    grace_seconds: int = 30,
    sound_process: Literal["auto", "own", "shared"] = "auto",
    voices: str | None = None,
    api_keys: str | None = None,
    translates: bool = False,
    ignore: str = "",
    log_content: bool = False,
    no_page: bool = False,
    compare_tokenizer: str | None = None,
    dtype: Precision = "fastest",
    device: str | None = None,
) -> None:
    """Serve a model to OpenAI's clients, and to people by a page at /, until it is stopped.

    Args:
        model: Audio-LLM folder or Hub id; the small embedded one if not given.
        host: address to listen at; only programs on this machine reach the one that is taken if not given.
        port: to listen at.
        name: by which clients call the model; the name of its folder if not given.
        engine: batching answers many requests together, plain one after the other, vllm lets a vLLM server compute
            their tokens.
        vllm_url: of that server, such as http://localhost:8001/v1; AUDIOLLM_VLLM_KEY holds its key, where it asks
            for one.
        vllm_model: the model's name there; the only one there is if not given.
        max_running: requests that are answered together; 8 if not given, and 64 by vLLM.
        max_waiting: requests that may wait beside them; more are told to come again (429).
        deadline_seconds: longest time of a request.
        max_upload_megabytes: largest recording, as it is sent.
        max_decoded_megabytes: largest recording, once it is decoded.
        max_upload_seconds: longest recording.
        max_channels: most channels of a recording.
        max_text_characters: longest text that is spoken.
        max_part_characters: of such a text that are spoken in one answer; longer ones are cut at the ends of sentences.
        max_tokens: most tokens of an answer that a request may ask for.
        max_prompt_tokens: longest prompt; what the context holds if not given.
        idle_seconds: how long a client may send nothing of its request, or read nothing of its answer.
        max_connections_per_key: requests and sockets of one key at once.
        max_session_seconds: longest realtime session.
        max_session_items: most messages of one.
        max_turn_seconds: longest recording in one.
        turn_detector: what tells in one that somebody speaks: level goes by the loudness, silero by Silero's network,
            and auto takes that one where it is installed.
        grace_seconds: how long answers may still take once the server is told to stop.
        sound_process: own makes sound in a process beside the language model's, shared in threads of that; auto takes
            an own one where both compute on processors.
        voices: YAML file of names, each with the voice in words.
        api_keys: file with a key in each line, one of which every request must bring; AUDIOLLM_API_KEYS holds some,
            with commas between, where no file is given.
        translates: the model was trained to translate speech, so that /v1/audio/translations answers.
        ignore: fields of transcriptions that clients may send though they have no effect: language, prompt.
        log_content: write questions and answers into the log.
        no_page: serve no page at /, where one talks with the model and looks into what it hears.
        compare_tokenizer: folder or Hub id of an audio tokenizer that the page shows beside the model's.
        dtype: precision of the LLM; by default float32 or bfloat16, whichever this machine writes faster in.
        device: torch device; the first GPU when there is one.
    """
    if no_page and compare_tokenizer is not None:
        raise ValueError("--compare-tokenizer is for the page: leave it out, or --no-page")
    _check_engine(engine, max_running, vllm_url=vllm_url, vllm_model=vllm_model)
    if engine == "vllm" and sound_process == "own":
        raise ValueError("--sound-process own: with --engine vllm the language model is in another process anyway")
    try:
        from audiollm.serving.server import Page, app_of, app_of_vllm, check_port, run_app
    except ImportError as error:
        raise ValueError(f"serving needs more packages ({error}): pip install 'audiollm[serve]'") from error
    from audiollm.serving.settings import RealtimeSettings, ServerSettings
    from audiollm.serving.sound.uploads import MEBIBYTE, UploadLimits

    settings = ServerSettings(
        uploads=UploadLimits(
            max_bytes=max_upload_megabytes * MEBIBYTE,
            max_decoded_bytes=max_decoded_megabytes * MEBIBYTE,
            max_seconds=max_upload_seconds,
            max_channels=max_channels,
        ),
        max_body_bytes=2 * max_upload_megabytes * MEBIBYTE,
        max_text_characters=max_text_characters,
        max_part_characters=max_part_characters,
        max_tokens=max_tokens,
        max_prompt_tokens=max_prompt_tokens,
        max_waiting=max_waiting,
        deadline_seconds=deadline_seconds,
        idle_seconds=idle_seconds,
        max_connections_per_key=max_connections_per_key,
        api_keys=_keys(api_keys),
        voices=_voices(voices),
        translates=translates,
        ignored=tuple(one.strip() for one in ignore.split(",") if one.strip()),
        realtime=RealtimeSettings(
            max_session_seconds=max_session_seconds,
            max_items=max_session_items,
            max_buffer_seconds=max_turn_seconds,
            activity=turn_detector,
        ),
        log_content=log_content,
    )
    if host not in _LOOPBACK and not settings.api_keys:
        logger.warning("%s can be reached from other machines, and asks for no key: give --api-keys", host)
    check_port(host, port)
    called = name or _name_of(model)
    sys.stderr.write(f"loading {called} …\n")
    page = None
    if not no_page:
        compared = None
        if compare_tokenizer is not None:
            compared = load_audio_tokenizer(compare_tokenizer, "float32", device, decodes=True)
        page = Page(compared, compare_tokenizer or "")
    if engine == "vllm":
        assert vllm_url is not None  # checked
        most = max_running or _VLLM_RUNNING
        app = app_of_vllm(model, settings, name=called, url=vllm_url, model=vllm_model, max_running=most, page=page)
    else:
        served = load_audio_llm(model, settled(dtype, model, device), device)
        most = max_running or _RUNNING
        app = app_of(
            served,
            settings,
            name=called,
            engine=engine,
            max_running=most,
            page=page,
            own_sound_process=sound_process == "own" or (sound_process == "auto" and served.device.type == "cpu"),
        )
    run_app(app, host=host, port=port, grace_seconds=grace_seconds)


def _check_engine(engine: str, max_running: int | None, **of_vllm: str | None) -> None:
    if engine == "vllm" and of_vllm["vllm_url"] is None:
        raise ValueError("--engine vllm: say where it is, by --vllm-url")
    for name, value in of_vllm.items():
        if engine != "vllm" and value is not None:
            raise ValueError(f"--{name.replace('_', '-')} {value}: belongs to --engine vllm")
    if max_running is not None and max_running < 1:
        raise ValueError(f"--max-running {max_running}: use 1 or more")
    if max_running is not None and engine == "plain":
        raise ValueError(f"--max-running {max_running}: --engine plain answers one request at a time; leave it out")


def _name_of(model: str) -> str:
    return Path(model).name if Path(model).is_dir() else model


def _keys(path: str | None) -> tuple[str, ...]:
    if path is None:
        return tuple(one.strip() for one in os.environ.get(KEYS_VARIABLE, "").split(",") if one.strip())
    keys = tuple(line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip())
    if not keys:
        raise ValueError(f"--api-keys {path}: the file holds no key; write one into each line")
    return keys


def _voices(path: str | None) -> dict[str, str]:
    """The voices of a file, beside the model's own."""
    voices = {"default": ""}
    if path is None:
        return voices
    import yaml

    given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(given, dict) or not all(isinstance(one, str) for pair in given.items() for one in pair):
        raise ValueError(f'--voices {path}: write names and words, such as "narrator: an elderly man, slowly"')
    return voices | given
