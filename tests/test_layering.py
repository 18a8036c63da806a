"""Import directions, no circles, folder sizes, free script names, import cost, the built wheel."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
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
# The command line sits on top of everything; it alone imports inside its functions, so that --help answers at once.
COMMAND_LINE = "audiollm.cli"
SHIPPED = {".py", ".json", ".jsonl", ".jinja", ".yaml", ".tsv", ".opus", ".md", ".safetensors", ".txt", ".js", ".css"}
MAX_MODULES = 15
MAX_SHARED_PREFIX = 2

Graph = dict[str, set[str]]


# --- the imports ------------------------------------------------------------------------------------------------------


def own_files(folder: str, pattern: str = "*.py") -> list[Path]:
    """The folder's own files: `audiollm/data` and its sisters are links to other folders."""
    files = (ROOT / folder).rglob(pattern)
    return sorted(path for path in files if not any(parent.is_symlink() for parent in path.parents))


def installed_path(path: Path) -> str:
    """Where a file lies once it is installed: every top-level folder is a subpackage of `audiollm`."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts if parts[0] == "audiollm" else ("audiollm", *parts))


def module_name(path: Path) -> str:
    """The dotted name of a file, such as ``audiollm.tokenizer.base``; a package's is that of its ``__init__``."""
    return installed_path(path.with_suffix("")).replace("/", ".").removesuffix(".__init__")


MODULES: dict[str, Path] = {module_name(path): path for folder in MAY_IMPORT for path in own_files(folder)}
FACES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def imported_names(nodes: Iterable[ast.AST], package: str) -> Iterator[str]:
    """Everything that is imported, as absolute dotted names: in functions and for type checkers too.

    Args:
        nodes: of a syntax tree.
        package: in which relative imports are resolved.
    """
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func) and node.args:
            yield dynamic_target(node.args[0], package)


def dynamic_target(argument: ast.expr, package: str) -> str:
    """What ``import_module(argument)`` reaches: an f-string counts up to its first gap, other expressions not."""
    if isinstance(argument, ast.JoinedStr) and argument.values and isinstance(argument.values[0], ast.Constant):
        argument = argument.values[0]
    text = argument.value if isinstance(argument, ast.Constant) else ""
    return package + text if isinstance(text, str) and text.startswith(".") else str(text)


def module_of(name: str, modules: Mapping[str, object]) -> str | None:
    """The module that holds a dotted name: itself, or the longest part of it that is one."""
    while name:
        if name in modules:
            return name
        name = name.rpartition(".")[0]
    return None


def import_graph() -> Graph:
    """Which of our modules each of them imports, faces left out: a sub-module's import runs them anyway."""
    graph: Graph = {}
    for name, path in MODULES.items():
        package = name if name in FACES else name.rpartition(".")[0]
        found = imported_names(ast.walk(ast.parse(path.read_text(encoding="utf-8"))), package)
        graph[name] = {module for target in found if (module := module_of(target, MODULES))} - {name}
    return graph


GRAPH = import_graph()


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other: an arrow whose target reaches its source is part of one."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = [node for node in graph.get(waiting.pop(), ()) if node not in seen]
            seen.update(new)
            waiting += new
        reached[start] = seen
    found = {tuple(sorted(n for n in graph if n in reached[m] and m in reached[n])) for m in graph if m in reached[m]}
    return [list(group) for group in sorted(found)]


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles({name: GRAPH[name] - FACES for name in GRAPH.keys() - FACES}) == []


def test_no_circle_runs_through_a_face() -> None:
    """Importing a module runs the faces of all packages around it, which may import in their turn."""
    graph = {}
    for name, targets in GRAPH.items():
        running = {*packages_of(name), name}
        graph[name] = {node for target in targets for node in (target, *packages_of(target))} - running
    assert circles(graph) == []


def packages_of(module: str) -> Iterator[str]:
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


@pytest.mark.parametrize("package", sorted(FACES))
def test_no_circle_among_the_modules_and_folders_of_a_folder(package: str) -> None:
    """Each sub-folder is one node: what it holds may know what another holds, but not the other way round as well."""
    inside = f"{package}."
    graph: Graph = {}
    for name in GRAPH.keys() - FACES:
        if name.startswith(inside):
            node = name.removeprefix(inside).split(".")[0]
            targets = {t.removeprefix(inside).split(".")[0] for t in GRAPH[name] - FACES if t.startswith(inside)}
            graph.setdefault(node, set()).update(targets - {node})
    if package == "audiollm":  # its links are folders of their own, whose arrows the test of the layers keeps
        graph = {node: targets - MAY_IMPORT.keys() for node, targets in graph.items() if node not in MAY_IMPORT}
    assert circles(graph) == []


def test_the_graph_sees_every_spelling_of_an_import() -> None:
    def names(source: str) -> set[str]:
        return set(imported_names(ast.walk(ast.parse(source)), "audiollm.data.audio"))

    assert names("import audiollm.training.sft") == {"audiollm.training.sft"}
    assert names("from audiollm import data") == {"audiollm.data"}
    assert names("def f():\n    from audiollm.benchmarks import metrics") == {"audiollm.benchmarks.metrics"}
    assert names("if TYPE_CHECKING:\n    from .reading import load_audio") == {"audiollm.data.audio.reading.load_audio"}
    assert names("from ..files import atomic") == {"audiollm.data.files.atomic"}
    assert names("import_module('audiollm.benchmarks.mmau')") == {"audiollm.benchmarks.mmau"}
    assert names("importlib.import_module(f'audiollm.benchmarks.{name}')") == {"audiollm.benchmarks."}
    assert names("import_module(f'.{name}')") == {"audiollm.data.audio."}


def test_circles_are_found_and_chains_are_none() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": []}) == []
    assert circles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) == [["a", "b", "c"]]


# --- the arrows -------------------------------------------------------------------------------------------------------


def layer(module: str) -> str:
    """The top-level folder that holds a module."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "audiollm"


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_follow_the_layering(folder: str) -> None:
    allowed = MAY_IMPORT[folder] | {folder}
    ours = [name for name in MODULES if layer(name) == folder and not name.startswith(COMMAND_LINE)]
    assert ours
    assert [(name, target) for name in ours for target in GRAPH[name] if layer(target) not in allowed] == []


def test_nothing_imports_the_command_line() -> None:
    above = [name for name in MODULES if not name.startswith((COMMAND_LINE, "audiollm.__main__"))]
    assert [(n, target) for n in above for target in GRAPH[n] if target.startswith(COMMAND_LINE)] == []


def test_no_folder_is_imported_by_its_bare_name() -> None:
    for name, path in MODULES.items():
        found = imported_names(ast.walk(ast.parse(path.read_text(encoding="utf-8"))), name)
        assert not {target.split(".")[0] for target in found} & (MAY_IMPORT.keys() - {"audiollm"}), path


def test_only_commands_import_ours_inside_functions() -> None:
    """There and under TYPE_CHECKING an import hides from readers what a module knows."""
    hidden = []
    for name, path in MODULES.items():
        if name.startswith(COMMAND_LINE):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        deep = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        deep += [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
        nodes = [node for part in deep for node in ast.walk(part) if isinstance(node, ast.Import | ast.ImportFrom)]
        found = set(imported_names(nodes, name if name in FACES else name.rpartition(".")[0]))
        hidden += [(name, target) for target in sorted(found) if target.startswith("audiollm.")]
    assert hidden == []


# --- the folders ------------------------------------------------------------------------------------------------------


def test_no_folder_is_crowded() -> None:
    sizes = Counter(path.parent for name, path in MODULES.items() if name not in FACES)
    assert {str(folder): size for folder, size in sizes.items() if size > MAX_MODULES} == {}


def test_no_prefix_does_the_work_of_a_folder() -> None:
    """Trainers are programs, one beside the other under the names that their users type."""
    prefixes = Counter(
        (path.parent, path.stem.split("_")[0])
        for path in MODULES.values()
        if "_" in path.stem.strip("_") and not (path.parent == ROOT / "training" and path.stem.startswith("train_"))
    )
    assert [key for key, count in prefixes.items() if count > MAX_SHARED_PREFIX] == []


def test_every_folder_of_modules_has_a_face_that_says_what_it_is() -> None:
    assert {path.parent for path in MODULES.values()} == {MODULES[name].parent for name in FACES}
    for name in FACES:
        docstring = ast.get_docstring(ast.parse(MODULES[name].read_text(encoding="utf-8")))
        assert docstring, f"{name} doesn't say what it holds"


@pytest.mark.parametrize("folder", ["training", "benchmarks"])
def test_names_beside_scripts_shadow_no_dependency(folder: str) -> None:
    """Launching a script puts its folder first on the import path: files and folders there hide others' packages."""
    optional = {"datasets", "deepspeed", "evaluate", "wandb", "ray", "vllm", "trl"}  # absent on a bare machine
    taken = sys.stdlib_module_names | packages_distributions().keys() | MAY_IMPORT.keys() | optional
    names = {path.stem for path in (ROOT / folder).iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not (names - {"__init__", "__pycache__"}) & taken


@pytest.mark.parametrize("folder", ["training", "benchmarks"])
def test_scripts_are_programs_and_only_recipes_and_commands_import_them(folder: str) -> None:
    scripts = {module_name(path) for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py"}
    adapters = {"audiollm.benchmarks.lmms_eval_adapter"}  # an entry point of another program
    for name in scripts - adapters:
        assert 'if __name__ == "__main__":' in MODULES[name].read_text(encoding="utf-8"), name
    libraries = GRAPH.keys() - scripts - {name for name in GRAPH if name.startswith(COMMAND_LINE)}
    found = [(name, target) for name in libraries for target in GRAPH[name] & scripts]
    assert [pair for pair in found if not pair[0].startswith("audiollm.training.recipes.")] == []


# --- what importing costs ---------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("package", sorted(FACES))
def test_every_public_name_of_a_face_resolves(package: str) -> None:
    face = import_module(package)
    for name in getattr(face, "__all__", ()):
        assert getattr(face, name) is not None


IMPORTER = """
import importlib, os, sys
import torch, transformers, datasets, accelerate  # once, before the forks; what is tried is ours
for module in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        importlib.import_module(module)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(module)
"""


def modules_that_cannot_be_first(modules: Iterable[str]) -> list[str]:
    """Those that lean on another having been imported before them, or fail in any other way; each in a process."""
    command = [sys.executable, "-c", IMPORTER, *modules]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.split()


@pytest.mark.slow
def test_each_module_can_be_imported_first() -> None:
    run_when_imported = {"audiollm.__main__", "audiollm.cli.__main__"}
    of_another_program = {"audiollm.benchmarks.lmms_eval_adapter"}
    assert modules_that_cannot_be_first(sorted(MODULES.keys() - run_when_imported - of_another_program)) == []


def check_licences(wheel: Path) -> None:
    """A wheel says under what its parts are: the code, the embedded model, the sample recordings."""
    archive = zipfile.ZipFile(wheel)
    [info] = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    code, mini, sample = "LICENSE", "audiollm/embedded/mini/README.md", "data/corpora/sample/ATTRIBUTION.md"
    texts = {path: archive.read(f"{info}/licenses/{path}").decode() for path in (code, mini, sample)}
    assert texts == {path: (ROOT / path).read_text(encoding="utf-8") for path in texts}
    assert "license: cc-by-sa-3.0" in texts[mini]
    assert archive.read(mini).decode() == texts[mini]
    metadata = archive.read(f"{info}/METADATA").decode().partition("\n\n")[0]
    expression = re.search(r"^License-Expression: (.*)$", metadata, re.MULTILINE)
    assert expression is not None
    licences_of_clips = re.findall(r"^- (C[\w.-]+|MIT): ", texts[sample], re.MULTILINE)
    assert set(expression[1].split(" AND ")) == {"Apache-2.0", "CC-BY-SA-3.0", *licences_of_clips}
    assert {"Keywords", "Project-URL", "Classifier"} <= {line.split(":")[0] for line in metadata.splitlines()}


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
    expected = {
        installed_path(path) for folder in MAY_IMPORT for path in own_files(folder, "*") if path.suffix in SHIPPED
    }
    assert {".py", ".opus", ".yaml"} <= {Path(name).suffix for name in expected}
    assert expected - set(names) == set()
    check_licences(wheel)
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = "import audiollm.tokenizer.quantizer.codebook as m; print(m.__file__)"
    found = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(site), *sys.path]!r}; {code}"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert found.stdout.strip().startswith(str(site))
