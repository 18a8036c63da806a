"""Conversations rendered by a chat template and cut into pieces that can be tokenized safely.

What a text says can never become structure. Templates are text in, text out, so special tokens that a text spells
get another first character, one that nobody uses, before rendering; every special token found afterwards is the
template's own.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from audiollm.data.conversation.problems import ConversationError
from audiollm.data.conversation.types import AudioPart, Conversation, Message
from audiollm.tokenizer.locks import CopyableLock
from audiollm.vocabulary import AUDIO_END, AUDIO_START, TURN_START

NO_TURN = "prompt"  # the role of what a template writes outside any turn

_CODE_TOKENS = r"<\|audio_\d+\|>"  # stands for thousands of alternatives
_GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")
# Characters without a meaning; those that no text contains disguise spelt marks.
_PRIVATE_USE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
_RENDERING = CopyableLock()
_OURS = "{#+ audiollm #}"  # the + keeps white space in front of the comment
_LAST_NEWLINE = re.compile(r"(?:\r\n|\r|\n)\Z")


@dataclass
class Piece:
    """A stretch of a rendered conversation: a special token, an audio segment, or text between them.

    Attributes:
        text: what it says; empty for an audio segment.
        is_special: whether it is one special token.
        is_audio: whether it stands for an audio segment with its marks.
        by_assistant: whether the template says that the model writes it.
        role: whose turn it belongs to.
        token_ids: filled in by the processor.
    """

    text: str
    is_special: bool = False
    is_audio: bool = False
    by_assistant: bool = False
    role: str = NO_TURN
    token_ids: list[int] = field(default_factory=list)


@contextmanager
def _failing_template(name: str) -> Iterator[None]:
    """Makes one error of whatever a chat template raises: by itself, or over messages that it does not foresee."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:  # templates compute: what fails in them is of any type
        raise ConversationError(f"{name}: the chat template fails: {' '.join(str(error).split())}") from error


class ConversationRenderer:
    """Renders conversations for one text tokenizer.

    Args:
        text_tokenizer: its special tokens are structure; templates see their names.
    """

    def __init__(self, text_tokenizer: PreTrainedTokenizerBase) -> None:
        self._names: dict[str, Any] = dict(text_tokenizer.special_tokens_map)
        code = re.compile(_CODE_TOKENS)
        added = text_tokenizer.added_tokens_decoder.values()
        names = {token.content for token in added if token.special and not code.fullmatch(token.content)}
        # The longest first, as the tokenizer itself does.
        special = "|".join([_CODE_TOKENS, *map(re.escape, sorted(names, key=len, reverse=True))])
        self._special = re.compile(special)
        self._special_start = re.compile(f"(?={special})")  # finds those that begin within another one, too
        self._first_characters = sorted({"<", *(name[0] for name in names)})  # "<" begins the tokens of codes

    def pieces(self, conversation: Conversation, template: str, **options: bool) -> list[Piece]:
        """Renders a conversation and cuts it at its structure: special tokens, and where the assistant speaks.

        Between two cuts, template and users' text stay one string, so its ids are those of the rendered text. The cut
        in front of what the assistant says makes a training example begin with the very ids of its prompt.

        Args:
            conversation: the conversation.
            template: Jinja source.
            options: ``add_generation_prompt``, ``continue_final_message``.

        Raises:
            ValueError: if the template does not show every audio part as the bare pair of marks.
        """
        messages: Any = [_template_message(message) for message in conversation.messages]
        tools: Any = conversation.tools
        stand_ins = self._stand_ins([messages, tools])
        if stand_ins:
            messages, tools = (
                _map_strings(value, lambda text: self._disguise(text, stand_ins)) for value in (messages, tools)
            )
        marks_assistant = marks_assistant_turns(template)
        with _failing_template(conversation.id):
            rendered, spans = self._render(
                messages, tools, template, return_assistant_tokens_mask=marks_assistant, **options
            )
        pieces = self._cut(rendered, spans, stand_ins)
        num_shown, num_parts = sum(piece.is_audio for piece in pieces), len(conversation.audio_parts)
        if num_shown != num_parts:
            raise ValueError(
                f"{conversation.id}: the chat template shows {num_shown} audio parts of {num_parts}: it must render "
                f"each as {AUDIO_START}{AUDIO_END}"
            )
        return pieces

    def text(self, conversation: Conversation, template: str, codes: Iterator[list[int]], **options: bool) -> str:
        """Renders a conversation as one text, audio spelt out from the next ``codes``; other arguments as `pieces`."""
        messages = [_template_message(message, codes) for message in conversation.messages]
        with _failing_template(conversation.id):
            return self._render(messages, conversation.tools, template, **options)[0]

    def _render(
        self, messages: Any, tools: Any, template: str, **options: bool
    ) -> tuple[str, Sequence[tuple[int, int]]]:
        """The rendered text, and where the assistant speaks in it (if asked for)."""
        # transformers keeps one compiled template for all callers, with the places of the assistant as its state: one
        # thread at a time, and a source that differs from everybody else's. Jinja drops one newline at the end of a
        # source, and so it must go before the comment comes.
        source = _LAST_NEWLINE.sub("", template) + _OURS
        with _RENDERING:
            rendered, spans = render_jinja_template(
                conversations=[messages], tools=tools, chat_template=source, **options, **self._names
            )
        return rendered[0], spans[0] if spans else []

    def _stand_ins(self, values: Any) -> dict[str, str]:
        """A private-use character for each character that special tokens begin with; none if no text spells one."""
        texts = list(_strings(values))
        if not any(self._special.search(text) for text in texts):
            return {}
        used = set().union(*texts, self._first_characters)
        unused = (chr(code) for code in chain(*_PRIVATE_USE) if chr(code) not in used)
        stand_ins = dict(zip(self._first_characters, unused, strict=False))
        if len(stand_ins) < len(self._first_characters):
            raise ValueError(
                "the texts hold every private-use character, so none is left to keep them apart from marks"
            )
        return stand_ins

    def _disguise(self, text: str, stand_ins: Mapping[str, str]) -> str:
        """A text in which every special token that it spells begins with a stand-in, tokens within tokens too."""
        pieces, end = [], 0
        for match in self._special_start.finditer(text):
            pieces += [text[end : match.start()], stand_ins[text[match.start()]]]
            end = match.start() + 1
        return "".join([*pieces, text[end:]])

    def _cut(self, rendered: str, spans: Sequence[tuple[int, int]], stand_ins: Mapping[str, str]) -> list[Piece]:
        """Cuts a rendered text at special tokens and at the edges of the assistant's spans."""
        specials = dict(match.span() for match in self._special.finditer(rendered))
        edges = {0, len(rendered), *specials.keys(), *specials.values(), *chain.from_iterable(spans)}
        originals = {ord(stand_in): original for original, stand_in in stand_ins.items()}
        starts = [first for first, _ in spans]
        pieces: list[Piece] = []
        # continue_final_message cuts the end of the text off, and the last span may reach behind it.
        for start, end in pairwise(sorted(edge for edge in edges if edge <= len(rendered))):
            piece = Piece(rendered[start:end], start in specials)
            span = bisect_right(starts, start) - 1  # the spans are in order and apart
            piece.by_assistant = span >= 0 and start < spans[span][1]
            if not piece.is_special and stand_ins:
                piece.text = piece.text.translate(originals)
            if _is(piece, AUDIO_END) and pieces and _is(pieces[-1], AUDIO_START):
                pieces[-1] = Piece("", is_audio=True, by_assistant=piece.by_assistant)
            else:
                pieces.append(piece)
        _assign_roles(pieces)
        return pieces


def marks_assistant_turns(template: str) -> bool:
    """Whether a chat template says what the assistant writes (``{% generation %}`` blocks)."""
    return _GENERATION_BLOCK.search(template) is not None


def _is(piece: Piece, special_token: str) -> bool:
    return piece.is_special and piece.text == special_token


def _assign_roles(pieces: Sequence[Piece]) -> None:
    """A ChatML turn's role is the line behind its opening mark; other templates only tell the assistant's spans."""
    role = NO_TURN
    for piece, following in pairwise([*pieces, Piece("")]):
        if _is(piece, TURN_START):
            role = following.text.split("\n", 1)[0]
        piece.role = "assistant" if piece.by_assistant else role


def _template_message(message: Message, codes: Iterator[list[int]] | None = None) -> dict[str, Any]:
    """A message as templates expect it; audio has its codes, or an empty list that shows as a bare pair of marks."""
    content: list[dict[str, Any]] = []
    for part in message.content:
        if isinstance(part, AudioPart):
            content.append({"type": "audio", "codes": [] if codes is None else next(codes)})
        elif content and content[-1]["type"] == "text":
            content[-1]["text"] += part.text  # one text, so that no token can be spelt across two parts
        else:
            content.append({"type": "text", "text": part.text})
    optional = {"name": message.name, "tool_calls": message.tool_calls, "tool_call_id": message.tool_call_id}
    present = {key: value for key, value in optional.items() if value is not None}
    return {"role": message.role, "content": content, **present}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(map(_strings, chain(value.keys(), value.values())))
    elif isinstance(value, (list, tuple)):
        yield from chain.from_iterable(map(_strings, value))


def _map_strings(value: Any, function: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return function(value)
    if isinstance(value, Mapping):
        return {function(key): _map_strings(item, function) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_strings(item, function) for item in value]
    return value
