"""What tests share: tiny checkpoints, recordings, parity data, and a server that answers like a chat model."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker per core: more threads, also of what tests start, only wait
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch and numpy are imported
# What commands write is the same on every processor.
os.environ.setdefault("AUDIOLLM_FASTEST", "float32")
os.environ.setdefault("AUDIOLLM_KERNEL", "onednn")
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))

import numpy as np
import pytest
import soundfile as sf
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from audiollm.cli import main
from audiollm.tokenizer.configuration import UniAudioTokenizerConfig
from audiollm.tokenizer.modeling import UniAudioTokenizer

CODEBOOK_SIZE = 64


FIXTURES = Path(__file__).parent / "fixtures" / "parity"


def parity_root() -> Path:
    """The committed parity data, or another folder of the same layout."""
    return Path(os.environ.get("AUDIOLLM_PARITY", FIXTURES))


@pytest.fixture(scope="session")
def parity() -> Path:
    return parity_root()


FAMILIES = {
    "encoder_variant": "encoder_",
    **{f"{name}_folder": name for name in (
        "codebook_training", "cosyvoice2_tokenizer", "decoder", "extract_audio_token", "glm4_voice", "losatok",
        "mel_22k", "reasoningcodec", "seq2seq", "speechtokenizer", "sqcodec", "stabletoken", "uniaudio2_lm",
        "wavtokenizer",
    )},
}  # fmt: skip
"""What a test asks for, and how the names of the folders begin with which it is run."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test once per folder of parity data that it is about; its id carries the folder's name."""
    for argument, prefix in FAMILIES.items():
        if argument in metafunc.fixturenames:
            names = sorted(path.name for path in parity_root().glob(f"{prefix}*") if path.is_dir())
            if argument == "encoder_variant":
                metafunc.parametrize(argument, names)
            else:
                # Of the session, so that a fixture of a module may read a folder once for all its tests.
                metafunc.parametrize(argument, [parity_root() / name for name in names], ids=names, scope="session")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names files in memory by what they are for: some hold the time at which they were made, others are long."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`codec/`, `llm/` and three recordings of one second, one of which is no audio."""
    root = tmp_path_factory.mktemp("cli")
    torch.manual_seed(0)
    config = UniAudioTokenizerConfig(
        num_mel_bins=80, d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        quantize_position=1, quantize_vocab_size=CODEBOOK_SIZE, quantize_encoder_only=True, pooling_kernel_size=2,
    )  # fmt: skip
    UniAudioTokenizer(config).save_pretrained(root / "codec")
    backend = Tokenizer(
        models.BPE(vocab={c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    text_tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    text_tokenizer.save_pretrained(root / "llm")
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(text_tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512,
        )
    ).save_pretrained(root / "llm")  # fmt: skip
    generator = np.random.default_rng(0)
    (root / "clips").mkdir()
    for name, seconds in (("a", 1.0), ("b", 0.5)):
        sf.write(root / "clips" / f"{name}.wav", generator.normal(0, 0.1, int(16000 * seconds)), 16000)
    (root / "broken.wav").write_bytes(b"RIFF this is no audio")
    return root


@pytest.fixture(scope="session")
def audio_llm(folders: Path) -> Path:
    main(
        ["extend", str(folders / "llm"), str(folders / "audio-llm"), "--audio_tokenizer", str(folders / "codec"),
         "--dtype", "float32"]
    )  # fmt: skip
    return folders / "audio-llm"


@dataclass
class Misbehaviour:
    """What a server does to one request in place of answering."""

    status: int = 200
    body: str | bytes | None = None  # None: the answer
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # before it answers
    reset: bool = False  # the connection is cut without a word
    kept_share: float = 1.0  # of the bytes that the header promises
    drip_seconds: float = 0.0  # between single bytes


class ChatServer:
    """An OpenAI-compatible server on this machine; ``answer`` makes the text of a reply from the request's JSON."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], str] = lambda request: "yes"
        self.models = ["tiny"]
        self.misbehaviours: deque[Misbehaviour] = deque()
        self.finish_reason = "stop"
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.num_open = self.most_open = 0
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each answer waits for an acknowledgement

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self.reply(200, json.dumps({"object": "list", "data": [{"id": name} for name in server.models]}))

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.requests.append(request)
                    server.keys.append(self.headers.get("Authorization"))
                    server.num_open += 1
                    server.most_open = max(server.most_open, server.num_open)
                    odd = server.misbehaviours.popleft() if server.misbehaviours else Misbehaviour()
                try:
                    time.sleep(odd.seconds)
                    if odd.reset:
                        self.close_connection = True
                        self.connection.close()
                        return
                    body = server.completion(request) if odd.body is None else odd.body
                    self.reply(odd.status, body, odd.headers, odd.kept_share, odd.drip_seconds)
                finally:
                    with server.lock:
                        server.num_open -= 1

            def reply(
                self,
                status: int,
                body: str | bytes,
                headers: dict[str, str] | None = None,
                share: float = 1.0,
                drip_seconds: float = 0.0,
            ) -> None:
                data = body if isinstance(body, bytes) else body.encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                kept = data[: round(len(data) * share)]
                size = 1 if drip_seconds else len(kept) or 1
                for start in range(0, len(kept), size):
                    self.wfile.write(kept[start : start + size])
                    time.sleep(drip_seconds)
                if share < 1:
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # clients that give up

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def completion(self, request: dict[str, Any]) -> str:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.answer(request)},
            "finish_reason": self.finish_reason,
        }
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})

    def misbehave(self, **what: Any) -> None:
        self.misbehaviours.append(Misbehaviour(**what))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    server = ChatServer()
    yield server
    server.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts what shares a launch first: it takes longest, and the other workers do the rest meanwhile."""
    items.sort(key=lambda item: "launches" not in getattr(item, "fixturenames", ()))
