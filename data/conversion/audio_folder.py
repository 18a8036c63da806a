"""Sound that lay inside records, in files that are named by the hash of their bytes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audiollm.data.conversation.types import AudioPart
from audiollm.data.files.atomic import atomic_entries

_HASH_DIGITS = 32


class AudioFolder(contextlib.AbstractContextManager["AudioFolder"]):
    """A folder for sound that lies in records; it is made with the first file, and filled when the block ends well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names: set[str] = set()
        self._waiting: dict[str, bytes] = {}
        self._stack = contextlib.ExitStack()
        self._staging: Path | None = None

    @property
    def num_files(self) -> int:
        return len(self._names)

    def put(self, part: AudioPart) -> Path:
        """Takes the bytes of a recording; returns the path that its file will have, absolute.

        Raises:
            AudioError: the bytes are no sound.
        """
        kind = part.probe().format.split()[0].lower()
        assert part.bytes is not None  # the caller looked
        digest = hashlib.sha256(part.bytes).hexdigest()[:_HASH_DIGITS]
        name = f"{digest}.{kind if kind.isalnum() else 'audio'}"
        if name not in self._names:
            self._waiting[name] = part.bytes
        return self.path.absolute() / name

    @contextlib.contextmanager
    def kept_if_well(self) -> Iterator[None]:
        """Writes what is put in a block, unless the block ends with an error."""
        self._waiting = {}
        yield
        for name, content in self._waiting.items():
            if self._staging is None:
                self._staging = self._stack.enter_context(atomic_entries(self.path))
            (self._staging / name).write_bytes(content)
            self._names.add(name)

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)
