"""A terminal that people type at, or a pipe of lines."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Sequence

from .loop import COMMAND_NAMES


class Typed:
    """A terminal: lines are edited, earlier ones come back with the arrow keys, Tab completes commands and files."""

    is_interactive = True

    def __init__(self) -> None:
        try:
            import readline
        except ImportError:  # Python without it: lines are typed as they are
            return
        readline.set_completer(_Completer())
        readline.set_completer_delims(" ")
        is_libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")

    def ask(self, prompt: str) -> str:
        return input(prompt)

    def show(self, text: str) -> None:
        _write(_printable(text))

    def tell(self, line: str) -> None:
        _write(f"{_printable(line)}\n")


class Piped:
    """Lines from a pipe: answers go to stdout, all else to stderr."""

    is_interactive = False

    def ask(self, prompt: str) -> str:
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line

    def show(self, text: str) -> None:
        _write(text)

    def tell(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


class _Completer:
    """Commands at the beginning of a line, files behind one."""

    def __init__(self) -> None:
        self._found: Sequence[str] = ()

    def __call__(self, text: str, state: int) -> str | None:
        if state == 0:
            self._found = completions(text)
        return self._found[state] if state < len(self._found) else None


def completions(text: str) -> list[str]:
    """What a word may become."""
    commands = [f"{name} " for name in COMMAND_NAMES if name.startswith(text)] if text.startswith("/") else []
    paths = glob.glob(f"{glob.escape(os.path.expanduser(text))}*")
    return commands or sorted(f"{path}/" if os.path.isdir(path) else path for path in paths)


def _printable(text: str) -> str:
    """Without what would move the cursor or change the terminal: it is another's text."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in text)


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
