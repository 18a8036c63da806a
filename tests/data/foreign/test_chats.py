"""Chats of other projects: what is heard where, what is trained on, and what is refused."""

import json

import pytest

from audiollm.data.foreign.base import ShapeError
from audiollm.data.foreign.detection import formats_of
from audiollm.data.foreign.formats import FORMATS

A, B = ({"type": "audio", "path": f"{name}.wav"} for name in "ab")


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def turn(role: str, *content: dict) -> dict:
    return {"role": role, "content": list(content)}


ONE_QUESTION = [turn("user", A, text("What is said?")), turn("assistant", text("Hello."))]
TWO_QUESTIONS = [
    turn("system", text("Be brief.")),
    turn("user", A, text("What is said?")),
    turn("assistant", text("Hello.")),
    turn("user", text("By whom?")),
    turn("assistant", text("A man.")),
]

CHATS = {
    "LLaMA-Factory's messages": (
        "messages",
        ONE_QUESTION,
        {
            "messages": [
                {"role": "user", "content": "<audio>What is said?"},
                {"role": "assistant", "content": "Hello."},
            ],
            "audios": ["a.wav"],
        },
    ),
    "ms-swift's messages, without a place for the recording": (
        "messages",
        ONE_QUESTION,
        {
            "messages": [
                {"role": "user", "content": "What is said?"},
                {"role": "assistant", "content": "Hello.", "loss": True},
            ],
            "audios": ["a.wav"],
        },
    ),
    "Kimi-Audio's turns": (
        "sharegpt",
        [turn("user", text("What is said?"), A), turn("assistant", text("Hello."))],
        {
            "conversation": [
                {"role": "user", "message_type": "text", "content": "What is said?"},
                {"role": "user", "message_type": "audio", "content": "a.wav"},
                {"role": "assistant", "message_type": "text", "content": "Hello."},
            ]
        },
    ),
    "FunASR's marks, and a developer as system": (
        "messages",
        [turn("system", text("Be brief.")), turn("user", text("Heard: "), A), turn("assistant", text("Hello."))],
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": "Heard: <|startofspeech|>!a.wav<|endofspeech|>"},
                {"role": "assistant", "content": "Hello."},
            ]
        },
    ),
    "transformers' parts under conversation": (
        "sharegpt",
        ONE_QUESTION,
        {
            "conversation": [
                {"role": "user", "content": [{"type": "audio", "url": "a.wav"}, text("What is said?")]},
                {"role": "assistant", "content": "Hello."},
            ]
        },
    ),
    "vLLM's parts": (
        "messages",
        ONE_QUESTION,
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "audio_url", "audio_url": {"url": "a.wav"}},
                        {"type": "text", "text": "What is said?"},
                    ],
                },
                {"role": "assistant", "content": "Hello."},
            ]
        },
    ),
    "LLaMA-Factory's ShareGPT": (
        "sharegpt",
        TWO_QUESTIONS,
        {
            "conversations": [
                {"from": "human", "value": "<audio>What is said?"},
                {"from": "gpt", "value": "Hello."},
                {"from": "human", "value": "By whom?"},
                {"from": "gpt", "value": "A man."},
            ],
            "system": "Be brief.",
            "audios": ["a.wav"],
        },
    ),
    "a data set of sounds, with another key and another mark": (
        "sharegpt",
        ONE_QUESTION,
        {
            "sound": "a.wav",
            "conversations": [
                {"from": "human", "value": "<sound>What is said?"},
                {"from": "gpt", "value": "Hello."},
            ],
        },
    ),
    "Qwen-Audio's paths in the text": (
        "sharegpt",
        [turn("user", text("Audio 1: "), A, text("\nWhat is said?")), turn("assistant", text("Hello."))],
        {
            "conversations": [
                {"from": "user", "value": "Audio 1: <audio>a.wav</audio>\nWhat is said?"},
                {"from": "assistant", "value": "Hello."},
            ]
        },
    ),
    "NeMo's turns of text and audio": (
        "sharegpt",
        [
            turn("user", text("What is said?"), {**A, "duration": 1.0}),
            turn("assistant", text("I listen. Hello.")),
        ],
        {
            "conversations": [
                {"from": "User", "value": "What is said?", "type": "text"},
                {"from": "User", "value": "a.wav", "type": "audio", "duration": 1.0},
                {"from": "Assistant", "value": "I listen.", "type": "text"},
                {"from": "Assistant", "value": "Hello.", "type": "text"},
            ]
        },
    ),
    "ms-swift's pairs": (
        "sharegpt",
        TWO_QUESTIONS,
        {
            "system": "Be brief.",
            "conversation": [
                {"human": "<audio>What is said?", "assistant": "Hello."},
                {"human": "By whom?", "assistant": "A man."},
            ],
            "audios": ["a.wav"],
        },
    ),
    "query, response and history": (
        "query-response",
        TWO_QUESTIONS,
        {
            "system": "Be brief.",
            "query": "By whom?",
            "response": "A man.",
            "history": [["<audio>What is said?", "Hello."]],
            "audios": ["a.wav"],
        },
    ),
    "several recordings without a place stand in front": (
        "query-response",
        [turn("user", A, B, text("Which is louder?")), turn("assistant", text("The first."))],
        {"query": "Which is louder?", "response": "The first.", "audios": ["a.wav", "b.wav"]},
    ),
    "prompt and completion": (
        "prompt-completion",
        ONE_QUESTION,
        {"prompt": "<audio>What is said?", "completion": "Hello.", "audio": "a.wav"},
    ),
    "prompt and completion as messages": (
        "prompt-completion",
        ONE_QUESTION,
        {
            "prompt": [{"role": "user", "content": "<audio>What is said?"}],
            "completion": [{"role": "assistant", "content": "Hello."}],
            "audios": ["a.wav"],
        },
    ),
    "Alpaca": (
        "alpaca",
        [turn("user", A, text("Answer in English.\nWhat is said?")), turn("assistant", text("Hello."))],
        {"instruction": "Answer in English.", "input": "What is said?", "output": "Hello.", "audios": ["a.wav"]},
    ),
    "Alpaca without input": (
        "alpaca",
        ONE_QUESTION,
        {"instruction": "<audio>What is said?", "input": "", "output": "Hello.", "audios": ["a.wav"]},
    ),
}


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_becomes_our_conversation_and_its_format_is_found(corpus, name):
    format_name, messages, record = CHATS[name]
    (made,) = corpus.convert(corpus.lines("theirs.jsonl", record))
    assert made == {"id": "theirs.jsonl:1", "messages": messages}
    assert corpus.report.format == FORMATS[format_name].title
    assert corpus.convert(corpus.lines("array.json", json.dumps([record])))[0]["messages"] == messages


REFUSED = {
    "a turn without loss": (
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "loss": False}]},
        r"messages\[1\]\.loss: is not trained on; here every assistant turn is",
    ),
    "a turn of weight 0": (
        {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y", "weight": 0}]},
        r"conversations\[1\]\.weight: is not trained on",
    ),
    "a call of a tool": (
        {"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "{}"}]},
        r"conversations\[1\]\.from: function_call: calls of tools are not taken over",
    ),
    "tools": (
        {"conversations": [{"from": "human", "value": "x"}], "tools": "[{}]"},
        "tools: are not taken over",
    ),
    "an unknown role": (
        {"conversations": [{"from": "narrator", "value": "x"}]},
        r"conversations\[0\]\.from: 'narrator' is not known; use one of human",
    ),
    "pictures": (
        {"conversations": [{"from": "human", "value": "<image>x"}], "images": ["a.png"]},
        "images: belongs to a model that sees",
    ),
    "preferences": (
        {"messages": [{"role": "user", "content": "x"}], "rejected_response": "y"},
        "rejected_response: is a preference",
    ),
    "two system prompts": (
        {"system": "A", "conversations": [{"from": "system", "value": "B"}, {"from": "human", "value": "x"}]},
        "system: is a system prompt, and the turns hold another",
    ),
    "more marks than recordings": (
        {"query": "<audio><audio>x", "response": "y", "audios": ["a.wav"]},
        "has more <audio> than the record has audios",
    ),
    "more recordings than marks": (
        {"query": "<audio>x", "response": "y", "audios": ["a.wav", "b.wav"]},
        "audios: 1 of them have no <audio>",
    ),
    "marks without recordings": ({"query": "<audio>x", "response": "y"}, "messages: say <audio> 1 times"),
    "recordings twice": (
        {"query": "<audio>a.wav</audio>x", "response": "y", "audios": ["a.wav"]},
        "audios: holds recordings, and so does the text",
    ),
    "a list of responses": (
        {"query": "x", "response": ["y", "z"]},
        "response: must be a text, not a list",
    ),
    "no answer": ({"instruction": "x", "output": ""}, "output: missing"),
    "history that is no pairs": (
        {"query": "x", "response": "y", "history": ["x"]},
        r"history\[0\]: must be a pair of query and response",
    ),
    "an answer in the prompt": (
        {
            "prompt": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
            "completion": "z",
        },
        r"prompt\[1\]\.role: the completion is what the assistant says, and trained on",
    ),
    "speech that the API keeps": (
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "audio": {"id": "audio_1"}}]},
        r"messages\[1\]\.audio: is the API's own name",
    ),
    "nothing to learn": ({"messages": [{"role": "user", "content": "x"}]}, "messages: have no assistant turn"),
    "a recording that is not there": (
        {"query": "x", "response": "y", "audios": ["c.wav"]},
        r"audios\[0\]: .*c\.wav: no such file; relative paths start from .* \(--base-dir\)",
    ),
    "an answer that is not wanted": (
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "label": False},
        "label: says whether the answer is wanted",
    ),
    "a turn of another kind": (
        {"conversations": [{"from": "human", "value": "a.png", "type": "image"}, {"from": "gpt", "value": "y"}]},
        r"conversations\[0\].type: 'image' is not known",
    ),
    "a URL": (
        {"query": "x", "response": "y", "audios": ["https://x/y.wav"]},
        "'https://x/y.wav' is a URL; download the file",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_over_is_rejected_with_line_and_reason(corpus, name):
    record, message = REFUSED[name]
    (format_name,) = formats_of(record)
    good = next(chat for found, _, chat in CHATS.values() if found == format_name)
    source = corpus.lines("theirs.jsonl", good, record, "")
    with pytest.raises(ValueError, match=rf"theirs\.jsonl:2: .*{message}"):
        corpus.convert(source)
    (reason,) = corpus.rejections(source)
    assert corpus.report.conversations == corpus.report.rejected == 1
    assert reason.startswith(f"{source}:2: ")


def test_our_own_tools_and_codes_pass_through(corpus):
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    messages = [
        turn("user", {"type": "audio", "codes": [1, 2]}),
        {"role": "assistant", "content": [], "tool_calls": [call]},
        {**turn("tool", text("3")), "tool_call_id": "1"},
        turn("assistant", text("Three.")),
    ]
    record = {"id": "x", "messages": messages, "tools": [{"name": "f"}]}
    assert corpus.convert(corpus.lines("ours.jsonl", record)) == [record]


def test_a_key_of_a_turn_that_nothing_reads_is_listed(corpus, caplog):
    record = {
        "conversations": [
            {"from": "human", "value": "x", "markdown": None},
            {"from": "gpt", "value": "y", "markdown": "z"},
        ],
        "dialect": "north",
    }
    (made,) = corpus.convert(corpus.lines("theirs.jsonl", record))
    assert "turns.markdown (1 record), dialect (1)" in caplog.text
    assert made["dialect"] == "north"


def test_readers_refuse_records_of_others():
    for one in FORMATS.values():
        with pytest.raises(ShapeError, match="is not of"):
            one.readings({"nothing": 1}, None)
