"""What a reply says an option is *not*: words before it, words behind it, and a line through it."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SAID_OF = (
    r"(?:the|an?|that|it|this|its|it['’]s|is|be|correct|right|best|likely|option|choice|answer|letter|sound|选项|選項)"
)
_BEFORE = re.compile(
    r"(?:\b(?:not|never|(?:is|was|are|do|does|did|would|could|should)n['’]?t|(?:can|could)\s*not|can['’]?t|neither|nor|"
    r"rather\s+than|instead\s+of|except(?:\s+for)?|excluding|(?:anything|all|everything)\s+but|other\s+than|"
    r"(?:rul(?:e|es|ed|ing)|eliminat(?:e|es|ed|ing)|exclud(?:e|es|ed))(?:\s+out)?|"
    r"(?<!no\s)(?<!without\s)(?<!little\s)doubt|nicht|keine?n?|(?:no|non)\s+(?:es|è)|não\s+é|n['’]est\s+pas|pas|не|"
    r"bukan)|不是|并非|並非|而非|而不是|不选|不選|不会是|不可能是|排除|非)"
    rf"\s*(?:(?:think|believe|feel|say)\s+)?(?:{_SAID_OF}\b\s*)*[\"'(\[*]*\s*\Z",
    re.IGNORECASE,
)
_SURELY = r"(?:(?:also|clearly|certainly|definitely|likely|obviously|probably|therefore)\s+)?"
_WRONG = r"(?:wrong|incorrect|false|unlikely|impossible|implausible|excluded|eliminated|(?:ruled\s+)?out)\b"
_RIGHT = (
    r"(?:the|an?|quite|really|very)?\s*(?:accurate|answer|appropriate|best|choice|consistent|correct|heard|it|likely|"
    r"match(?:ing)?|mentioned|option|plausible|possible|present|right|suitable|supported|valid)\b"
)
_BEHIND = re.compile(
    rf"[\"'’”)\].*]*\s*(?:(?:is|are|was|seems?|looks?|sounds?)\s+{_SURELY}{_WRONG}|"
    rf"(?:(?:is|are|was|can|could|would)\s*n['’]?o?t|can['’]t)\s+(?:be\s+)?(?:{_RIGHT}|\W*\Z)|"
    r"(?:can|could|must|may)\s+be\s+(?:ruled\s+out|excluded|eliminated|discarded)|"
    r"(?:does|do)\s*n['’]?o?t\s+(?:apply|correspond|fit|make|match|seem)\b|"
    r"(?:选项)?(?:是错|不对|不正确|不是正确|不符|错误|錯誤|可以排除|被排除)|[✗✘❌])",
    re.IGNORECASE,
)
_STRUCK_OUT = re.compile(r"~~.*?~~|<(del|s|strike)>.*?</\1>", re.DOTALL)
_REACH = 60  # characters looked at before an option
_DOUBTED = re.compile(
    r"(?:(?:\bnot|n['’]?t|\bnever)\s+(?:think|believe|feel|say)|(?<!no\s)(?<!without\s)(?<!little\s)\bdoubt)\s+"
    rf"(?:{_SAID_OF}\s+)*\Z",
    re.IGNORECASE,
)


def is_denied(text: str, start: int, end: int) -> bool:
    """Whether the option that stands at ``text[start:end]`` is said to be none."""
    before = text[max(0, start - _REACH) : start]
    return bool(_BEFORE.search(before)) or bool(_BEHIND.match(text, end))


def is_doubted(text: str, start: int) -> bool:
    """Whether what is stated from ``start`` on is introduced as what the reply does *not* think."""
    return bool(_DOUBTED.search(text[max(0, start - _REACH) : start]))


def without_struck_out(text: str) -> str:
    """A text without what has a line through it."""
    return _STRUCK_OUT.sub(" ", text)


def without_denied(text: str, options: Sequence[str]) -> str:
    """A text without the options that it denies, as far as they stand in it word by word."""
    spelt = sorted({option.strip() for option in options if option.strip()}, key=len, reverse=True)
    if not spelt or text.strip() in spelt:
        return text
    # The longest first: an option "not happy" is no denial of "happy".
    named = re.compile("|".join(_as_words(option) for option in spelt), re.IGNORECASE)
    kept, at = [], 0
    for match in named.finditer(text):
        if is_denied(text, match.start(), match.end()):
            kept.append(text[at : match.start()])
            at = match.end()
    return "".join([*kept, text[at:]])


def _as_words(option: str) -> str:
    """A pattern of an option that stands alone; letters of other scripts may touch it."""
    spelt = r"\s+".join(map(re.escape, option.split()))
    before = r"(?<![A-Za-z0-9])" if re.match(r"[A-Za-z0-9]", option) else ""
    after = r"(?![A-Za-z0-9])" if re.search(r"[A-Za-z0-9]\Z", option) else ""
    return f"{before}{spelt}{after}"
