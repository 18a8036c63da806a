"""The folders' import arrows, script names, import cost and the built wheel keep the promises of the architecture."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT: dict[str, set[str]] = {
    "tokenizer": set(),
    "data": {"tokenizer"},
    "audiollm": {"tokenizer", "data"},
    "benchmarks": {"tokenizer", "data", "audiollm"},
    "training": {"tokenizer", "data", "audiollm", "benchmarks"},
}
# The commands sit on top of everything and import inside their functions.
ABOVE_ALL = ROOT / "audiollm" / "cli"


def python_files(folder: str) -> list[Path]:
    """The folder's own files: `audiollm/data` and its sisters are links to other folders."""
    files = (ROOT / folder).rglob("*.py")
    return [path for path in files if not any(parent.is_symlink() for parent in path.parents)]


def folder_of(module: str) -> str:
    """The folder that holds an absolute `audiollm…` module name."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "audiollm"


def imported_folders(source: str) -> set[str]:
    """Which of our folders a file's absolute imports reach."""
    folders = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "audiollm":
            names = [f"audiollm.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        folders |= {folder_of(name) for name in names if name.split(".")[0] == "audiollm"}
    return folders


def bare_imports(source: str) -> set[str]:
    """Absolute imports of `tokenizer`, `data` and so on by their bare folder name."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
    return {name for name in names if name.split(".")[0] in MAY_IMPORT.keys() - {"audiollm"}}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_follow_the_layering(folder: str) -> None:
    forbidden = MAY_IMPORT.keys() - MAY_IMPORT[folder] - {folder}
    assert python_files(folder)
    for path in python_files(folder):
        if path.parent == ABOVE_ALL:
            continue
        assert not imported_folders(path.read_text()) & forbidden, f"{path} breaks the layering"
        assert not bare_imports(path.read_text()), f"{path} imports a folder by its bare name"


def test_the_layering_check_sees_every_spelling_of_an_import() -> None:
    assert imported_folders("import audiollm.training.sft") == {"training"}
    assert imported_folders("from audiollm import data") == {"data"}
    assert imported_folders("def f():\n    from audiollm.benchmarks.metrics import wer") == {"benchmarks"}
    assert imported_folders("from audiollm.vocabulary import extend") == {"audiollm"}
    assert imported_folders("from .codebook import Codebook") == set()
    assert bare_imports("from tokenizer.codebook import Codebook") == {"tokenizer.codebook"}


@pytest.mark.parametrize("folder", ["training", "benchmarks"])
def test_scripts_shadow_no_dependency(folder: str) -> None:
    optional = {"datasets", "deepspeed", "evaluate", "wandb"}  # absent on a bare machine
    taken = sys.stdlib_module_names | packages_distributions().keys() | MAY_IMPORT.keys() | optional
    assert not {path.stem for path in (ROOT / folder).glob("*.py")} & taken


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return set(output.stdout.split())


def test_import_audiollm_loads_no_heavy_library() -> None:
    assert not {"torch", "transformers", "numpy", "datasets"} & modules_after("import audiollm")


def test_the_tokenizer_does_not_pull_in_the_llm_stack() -> None:
    loaded = modules_after("from audiollm import UniAudioTokenizer")
    assert "torch" in loaded
    assert not {"peft", "datasets", "audiollm.processing", "audiollm.modeling"} & loaded


def test_unknown_public_name_lists_the_known_ones() -> None:
    import audiollm

    with pytest.raises(AttributeError, match=r"no attribute 'Tokenizer'.*UniAudioTokenizer"):
        _ = audiollm.Tokenizer


def test_every_public_name_resolves() -> None:
    import audiollm

    for name in audiollm.__all__:
        assert getattr(audiollm, name) is not None


@pytest.mark.multiprocess
def test_a_built_wheel_holds_every_folder_and_imports_on_its_own(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a build writes into its source folder
    unwanted = shutil.ignore_patterns(
        ".git", ".venv", "runs", "build", "tests", "*.egg-info", "__pycache__", ".*_cache"
    )
    shutil.copytree(ROOT, source, symlinks=True, ignore=unwanted)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("audiollm-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"audiollm"}
    assert "audiollm/tokenizer/quantizer/codebook.py" in names
    assert "audiollm/training/configs/sft.yaml" in names
    assert "audiollm/chat_template.jinja" in names
    assert "audiollm/data/corpora/sample/manifest.jsonl" in names
    assert sum(name.endswith(".opus") for name in names) == len(list((ROOT / "data/corpora/sample").rglob("*.opus")))
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = "import audiollm.tokenizer.quantizer.codebook as m; print(m.__file__)"
    found = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(site), *sys.path]!r}; {code}"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert found.stdout.strip().startswith(str(site))
