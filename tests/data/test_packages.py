"""Packages are fetched once, checked, unpacked safely, and every failure says what to do."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audiollm.data import packages
from audiollm.data.packages import Package, PackageError, extract, fetch_deb, fetch_npm, fetch_wheel

WHEEL = "toy_assets-1.0-py3-none-any.whl"
METADATA = "toy_assets-1.0.dist-info"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUDIOLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real wheel that pip finds in a local folder instead of the network."""
    folder = tmp_path / "registry"
    folder.mkdir()
    path = folder / WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy_assets/data/model.bin", b"weights")
        archive.writestr("toy_assets/__init__.py", "")
        archive.writestr(f"{METADATA}/METADATA", "Metadata-Version: 2.1\nName: toy-assets\nVersion: 1.0\n")
        archive.writestr(f"{METADATA}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{METADATA}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def leftovers(cache: Path) -> list[Path]:
    """Unfinished work: hidden temporary folders."""
    return [path for path in cache.rglob(".*") if path.is_dir()]


def fake_client(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> Path:
    """Puts shell scripts first on the PATH; each notes its arguments in ``calls``."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        path = bin_folder / name.replace("_", "-")
        path.write_text(f'#!/bin/sh\necho "$0 $*" >> {folder}/calls\n{script}\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return folder / "calls"


def test_a_wheel_is_fetched_once_and_then_needs_no_client(wheel, monkeypatch):
    path = fetch_wheel("toy-assets", "1.0", sha256(wheel))
    assert path.name == WHEEL
    assert path.read_bytes() == wheel.read_bytes()
    monkeypatch.setattr(packages, "_run", lambda *_: pytest.fail("the cached wheel was fetched again"))
    assert fetch_wheel("toy-assets", "1.0", sha256(wheel)) == path


def test_extraction_takes_what_matches_once(wheel):
    package = Package("wheel", "toy-assets", "1.0", sha256(wheel))
    folder = package.extract("*.bin")
    assert [path.name for path in sorted(folder.rglob("*")) if path.is_file()] == ["model.bin"]
    (folder / "toy_assets/data/model.bin").write_bytes(b"kept")
    assert package.extract("*.bin") == folder
    assert (folder / "toy_assets/data/model.bin").read_bytes() == b"kept"
    assert package.extract() != folder


def test_another_file_under_the_same_name_is_refused_and_not_kept(wheel, cache):
    with pytest.raises(PackageError, match=rf"SHA-256 {sha256(wheel)}, expected {'5' * 64}.*Nothing was kept"):
        fetch_wheel("toy-assets", "1.0", "5" * 64)
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert not leftovers(cache)


def test_a_version_that_is_gone_names_those_that_are_there(wheel):
    with pytest.raises(PackageError, match=r"toy-assets 9\.9 is not in the registry any more; it has 1\.0\."):
        fetch_wheel("toy-assets", "9.9", "5" * 64)


def test_an_unknown_name_shows_what_the_client_said(wheel):
    with pytest.raises(PackageError, match=r"(?s)found no such package.*No matching distribution"):
        fetch_wheel("toy-assetz", "1.0", "5" * 64)


def test_an_unreachable_registry_says_so(tmp_path, monkeypatch, wheel):
    said = "ERROR: NewConnectionError: Failed to establish a new connection: [Errno 111] Connection refused"
    failed = subprocess.CompletedProcess([], 1, "", f"{said}\nNo matching distribution (from versions: none)")
    passed = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(packages, "_run", lambda command, _: passed if "--version" in command else failed)
    with pytest.raises(PackageError, match=r"(?s)cannot reach its registry; connect to the network.*111"):
        fetch_wheel("toy-assets", "1.0", "5" * 64)


def test_a_python_without_pip_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(packages, "_run", lambda *_: subprocess.CompletedProcess([], 1, "", "No module named pip"))
    with pytest.raises(PackageError, match="ensurepip"):
        fetch_wheel("toy-assets", "1.0", "5" * 64)


@pytest.mark.parametrize(
    ("fetch", "client"), [(fetch_deb, r"apt-get.*Debian"), (fetch_npm, r"npm is not on the PATH; install Node\.js")]
)
def test_a_missing_client_is_named(fetch: Callable[..., Path], client, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackageError, match=client):
        fetch("toy", "1.0", "5" * 64)


@pytest.mark.parametrize("digest", ["", "5" * 63, "G" * 64, "A" * 64])
def test_a_pin_that_is_no_sha256_is_refused(digest):
    with pytest.raises(ValueError, match="64 lower-case hex digits"):
        fetch_wheel("toy-assets", "1.0", digest)


def test_a_deb_comes_from_fresh_private_lists_when_the_machine_has_none(tmp_path, cache, monkeypatch):
    deb = tmp_path / "toy.deb"
    deb.write_bytes(b"debian")
    script = (
        f'case "$*" in *"Lists={cache}"*" update") exit 0;; *"Lists={cache}"*download*) cp {deb} toy_1.0_all.deb;; '
        '*) echo "E: Unable to locate package toy" >&2; exit 100;; esac'
    )
    calls = fake_client(tmp_path, monkeypatch, apt_get=script)
    assert fetch_deb("toy", "1.0", sha256(deb)).name == "toy_1.0_all.deb"
    assert len(calls.read_text().splitlines()) == 3
    assert fetch_deb("toy", "1.0", sha256(deb)).read_bytes() == b"debian"
    assert len(calls.read_text().splitlines()) == 3  # the second time, nothing is asked


def test_a_deb_version_that_is_gone_names_those_that_are_there(tmp_path, monkeypatch):
    apt_get = "echo \"E: Version '1.0' for 'toy' was not found\" >&2; exit 100"
    fake_client(tmp_path, monkeypatch, apt_get=apt_get, apt_cache='echo "toy | 2.0-1 | main Packages"')
    with pytest.raises(PackageError, match=r"toy 1\.0 is not in the registry any more; it has 2\.0-1\."):
        fetch_deb("toy", "1.0", "5" * 64)


def test_npm_packs_without_scripts(tmp_path, monkeypatch):
    tgz = tmp_path / "toy-1.0.0.tgz"
    with tarfile.open(tgz, "w:gz") as archive:
        archive.addfile(tar_file("package/tokenizer.json", b"{}"), io.BytesIO(b"{}"))
    calls = fake_client(tmp_path, monkeypatch, npm=f"cp {tgz} .")
    path = fetch_npm("@scope/toy", "1.0.0", sha256(tgz))
    assert "--ignore-scripts" in calls.read_text()
    assert (extract(path, ["package/*.json"]) / "package/tokenizer.json").read_bytes() == b"{}"


def tar_file(name: str, content: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info


def test_a_real_deb_is_unpacked(tmp_path):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not on the PATH")
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: toy\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: toy\n"
    )
    (root / "usr/share/toy").mkdir(parents=True)
    (root / "usr/share/toy/a.g722").write_bytes(b"sound")
    (root / "usr/share/toy/link.g722").symlink_to("/etc/passwd")
    deb = tmp_path / "archive/toy.deb"
    deb.parent.mkdir()
    subprocess.run(["dpkg-deb", "--build", str(root), str(deb)], check=True, capture_output=True)
    folder = extract(deb, ["usr/share/toy/*"])
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*.g722")] == ["usr/share/toy/a.g722"]
    with pytest.raises(PackageError, match=r"holds no file named \*\.flac"):
        extract(deb, ["*.flac", "*.g722"])
    deb.write_bytes(deb.read_bytes()[:200])
    with pytest.raises(PackageError, match=r"damaged.*remove"):
        extract(deb, ["*"])


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_leave_the_folder_are_refused(tmp_path, name, kind):
    archive = tmp_path / "cache" / ("toy.whl" if kind == "zip" else "toy.tgz")
    archive.parent.mkdir()
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("good", b"1")
            file.writestr(zipfile.ZipInfo(name), b"2")
    else:
        with tarfile.open(archive, "w:gz") as file:
            file.addfile(tar_file("good", b"1"), io.BytesIO(b"1"))
            file.addfile(tar_file(name, b"2"), io.BytesIO(b"2"))
    with pytest.raises(PackageError, match="unsafe path"):
        extract(archive)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [archive.name]
    assert not leftovers(tmp_path)


def test_links_and_devices_are_left_out(tmp_path):
    archive = tmp_path / "toy.tgz"
    with tarfile.open(archive, "w:gz") as file:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"special{kind.decode()}")
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
        file.addfile(tar_file("plain", b"1"), io.BytesIO(b"1"))
    assert [path.name for path in extract(archive).iterdir()] == ["plain"]


@pytest.mark.parametrize("name", ["toy.whl", "toy.tgz"])
def test_a_damaged_archive_names_itself(tmp_path, name):
    (tmp_path / name).write_bytes(b"not an archive")
    with pytest.raises(PackageError, match=rf"{name} is damaged"):
        extract(tmp_path / name)


def test_two_at_once_both_get_the_file(wheel, cache):
    digest = sha256(wheel)
    code = f"from audiollm.data.packages import *; fetch_wheel('toy-assets', '1.0', '{digest}')"
    with ThreadPoolExecutor(2) as pool:
        command = [sys.executable, "-c", code]
        results = list(pool.map(lambda _: subprocess.run(command, capture_output=True, text=True), range(2)))
    assert [result.returncode for result in results] == [0, 0], results[0].stderr + results[1].stderr
    assert fetch_wheel("toy-assets", "1.0", digest).read_bytes() == wheel.read_bytes()
    assert not leftovers(cache)
