"""Files and folders that are either the old one or the new one, never half of each."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from safetensors import SafetensorError

from audiollm.tokenizer.locks import entries_held, held_folder

logger = logging.getLogger(__name__)

_READABLE = 0o755
_ATTEMPTS = 20  # to put a folder where other processes put theirs
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Opens a file that takes the place of ``path`` when the block ends well.

    What is written goes to a hidden file beside ``path``, is flushed to the disk, and is renamed in one step. If the
    block raises or the process is killed, ``path`` stays as it was.

    Args:
        path: the file to write or replace; its folder must exist. A link is followed.
        mode: "w" for text (UTF-8, ``\\n`` line ends), "wb" for bytes.

    Raises:
        ValueError: another mode.
        OSError: the folder does not exist or the disk is full.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f'mode={mode!r}: use "w" or "wb"; a file is always written whole')
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    text = {"encoding": "utf-8", "newline": "\n"} if mode == "w" else {}
    try:
        with open(temporary, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flushes a folder's list of files to the disk, so that a rename in it survives a power cut."""
    if os.name != "posix":
        return  # only POSIX opens folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_folder(
    target: str | os.PathLike[str], *, existing: Literal["replace", "keep", "refuse"] = "replace"
) -> Iterator[Path]:
    """Yields an empty folder that takes the place of ``target`` in one step when the block ends well.

    What the block writes is flushed to the disk first, and may be read by whoever may read the folder (libraries write
    weights for their owner alone). If the block raises or the process is killed, ``target`` stays as it was. The hidden
    folder that a killed process leaves is removed by the next one on the same machine that writes ``target``.

    Args:
        target: the folder to make; its parents are made. A link is followed.
        existing: what happens to a folder that is there: it is replaced, it is kept and ours is dropped (for caches,
            where another process's result is as good), or none may be there when the block begins. With the last two,
            a folder that another process puts there meanwhile stays, and ours is dropped. With "keep", all users may
            read the folder and the parents that are made for it, since they share caches; else the umask decides.

    Raises:
        FileExistsError: the folder is there and is to be refused; or there is a file of that name.
        OSError: the system cannot write, which the message says together with ``target``. Other errors of the block
            are raised as they are.
    """
    final = Path(os.path.realpath(target))
    if existing == "refuse" and final.exists():
        raise FileExistsError(f"{target} exists already; remove it to build it again")
    if final.exists() and not final.is_dir():
        raise FileExistsError(f"{target} is a file; a folder is to be written there: move the file away")
    is_cache = existing == "keep"
    with contextlib.ExitStack() as stack:
        with _named_errors(target):
            _make_parents(final, is_readable=is_cache)
            _clear_leftovers(final)
            staging = stack.enter_context(_staging_folder(final))
            if is_cache:
                staging.chmod(_READABLE)
        with _full_disk_named(target):
            yield staging
        with _named_errors(target):
            open_and_flush(staging)
            put_in_place(staging, final, may_replace=existing == "replace")
            sync_folder(final.parent)


@contextlib.contextmanager
def atomic_entries(folder: str | os.PathLike[str], *, outdated: Sequence[str] = ()) -> Iterator[Path]:
    """Yields an empty folder whose files and folders go into ``folder`` when the block ends well, each in one step.

    Entries of the same names are replaced, all others stay, so that a folder may hold more than what is written.

    Args:
        folder: where the entries go; made if it is not there.
        outdated: patterns of entries that go when the new ones are in place and none of them has that name, such as the
            parts of weights that are now one file.

    Raises:
        OSError: the system cannot write, which the message says together with ``folder``. If that happens while the
            block runs, ``folder`` is as it was.
    """
    final = Path(os.path.realpath(folder))
    is_new = not final.exists()
    # Beside a new folder, which appears whole; else inside, on the same disk even if the folder is a mount.
    place = final if is_new else final / "entries"
    with contextlib.ExitStack() as stack:
        with _named_errors(folder):
            _make_parents(place, is_readable=False)
            _clear_leftovers(place)
            staging = stack.enter_context(_staging_folder(place))
        with _full_disk_named(folder):
            yield staging
        with _named_errors(folder):
            open_and_flush(staging)
            if is_new and _has_become(staging, final):
                sync_folder(final.parent)
                return
            names = sorted(entry.name for entry in staging.iterdir())
            with entries_held(final):
                for name in names:
                    put_in_place(staging / name, final / name, may_replace=True)
                for pattern in outdated:
                    for entry in final.glob(pattern):
                        if entry.name not in names:
                            _remove(entry)
            sync_folder(final)


def _has_become(staging: Path, final: Path) -> bool:
    """Gives a folder its name, unless another process made one of that name meanwhile."""
    try:
        staging.rename(final)
    except OSError:
        if not final.is_dir():
            raise
        return False
    return True


@contextlib.contextmanager
def _named_errors(target: str | os.PathLike[str]) -> Iterator[None]:
    """Says what could not be written where a step of ours fails; the class of the error stays."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not the system's: raised with a message of its own
            raise
        raise type(error)(f"{target} could not be written: {error}") from error


@contextlib.contextmanager
def _full_disk_named(target: str | os.PathLike[str]) -> Iterator[None]:
    """Says what could not be written where a block fails for want of space; its other errors are its own."""
    try:
        yield
    except SafetensorError as error:  # what a full disk is to safetensors
        raise OSError(f"{target} could not be written: {error}") from error
    except OSError as error:
        if error.errno not in _DISK_IS_FULL:
            raise
        raise OSError(f"{target} could not be written: {error}") from error


def _make_parents(final: Path, *, is_readable: bool) -> None:
    made = [parent for parent in final.parents if not parent.exists()]
    final.parent.mkdir(parents=True, exist_ok=True)
    if is_readable:
        for parent in made:
            parent.chmod(parent.stat().st_mode | _READABLE)


@contextlib.contextmanager
def _staging_folder(final: Path) -> Iterator[Path]:
    """Makes a hidden folder beside ``final``; it is held while the block lasts, and what is left of it then goes."""
    while True:
        staging = _hidden_sibling(final, "tmp")
        staging.mkdir()
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(held_folder(staging))
            except (BlockingIOError, FileNotFoundError):
                continue  # another process took it for a leftover before it was held
            if not staging.is_dir():
                continue  # likewise
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            return


def put_in_place(new: Path, final: Path, *, may_replace: bool) -> None:
    """Renames a file or folder; what was there is moved aside first and moved back if that fails."""
    if not may_replace:
        try:
            new.rename(final)
        except OSError:
            if not final.is_dir():
                raise
            logger.info("%s was made by another process meanwhile; using that one", final)
        return
    for attempt in range(_ATTEMPTS):
        try:
            _replace(new, final)
            return
        except OSError as error:
            # Another process put its own there, or took it away, between two steps of ours: whose comes last stays.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT) or attempt + 1 == _ATTEMPTS:
                raise
            if not new.exists():
                raise


def _replace(new: Path, final: Path) -> None:
    if not final.is_dir() or final.is_symlink():
        os.replace(new, final)  # over a file, in one step
        return
    # A rename does not replace a folder that holds something: between the two renames there is none, for a moment.
    old = _hidden_sibling(final, "old.tmp")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # another process replaces it too, or it may not be read
            stack.enter_context(held_folder(final))
        os.replace(final, old)
        try:
            os.replace(new, final)
        except BaseException:
            if final.exists():  # another process's: it is as new as ours
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(old, final)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _hidden_sibling(path: Path, ending: str) -> Path:  # a name that `entries_held` knows
    return path.with_name(f".{path.name}.{_machine()}-{secrets.token_hex(4)}.{ending}")


def _machine() -> str:
    """Short and without marks; some shared disks keep locks on one machine only."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _clear_leftovers(final: Path) -> None:
    """Removes what killed processes of this machine left; of two renames it puts back the one that was half done."""
    pattern = re.compile(rf"\.{re.escape(final.name)}\.{_machine()}-[0-9a-f]{{8}}\.(old\.)?tmp")
    for entry in final.parent.iterdir():
        match = pattern.fullmatch(entry.name)
        if match is None:
            continue
        with contextlib.suppress(OSError), held_folder(entry) as is_held:  # held by another: its process lives
            if not is_held:
                continue
            if match[1] and not final.exists():
                os.replace(entry, final)
            else:
                shutil.rmtree(entry, ignore_errors=True)


def open_and_flush(folder: Path) -> None:
    """Gives all below a folder the folder's own rights of reading, and waits until it is on the disk."""
    rights = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        if path.is_symlink():
            continue
        if path.is_dir():
            path.chmod(path.stat().st_mode | rights)
            sync_folder(path)
        else:
            path.chmod(path.stat().st_mode | rights & 0o444)
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()
