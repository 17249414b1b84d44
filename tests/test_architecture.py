"""The rules of the code base that a script can check: names, docstrings, words, parameters, unused definitions."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Folders that the rules of language hold for. The trainer follows when it is rewritten.
FOLDERS = ("mmpack", "tools", "benchmarks", "examples", "tests")
#: Largest number of parameters of a public function. Compiled functions take arrays one by one, because numba
#: unpacks objects slowly, and commands take one parameter per option.
MAX_PARAMETERS = 6

#: A docstring stands by itself: it does not begin with a word that leans on the name above it.
LEANING = {"Of", "What", "Which", "Who", "Whose", "From", "With", "To", "Where", "How", "Whether", "When"}
#: Words of no meaning in the field, in texts and names.
FORBIDDEN = re.compile(
    r"(?<![A-Za-z])(mend|mends|mended|told|heard|beside|stamp|stamps|stamped|sound|sounds|picture|pictures|diary|making)(?![A-Za-z])",
    re.IGNORECASE,
)
#: Module names that several folders share: the registry of each extension point, and one file per medium and stage.
PARALLEL = {"__init__.py", "registry.py", "audio.py", "images.py", "numeric.py", "text.py"}


def paths(*folders: str) -> list[Path]:
    """The Python files below `folders`, without the tests of the trainer unless the trainer is asked for."""
    files = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    trainer_tests = ROOT / "tests" / "trainer"
    return [path for path in files if "trainer" in folders or trainer_tests not in path.parents]


def definitions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Every function and class of a module, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def where(path: Path, line: int) -> str:
    """A location for a message."""
    return f"{path.relative_to(ROOT)}:{line}"


def test_a_class_name_is_used_once() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in paths("mmpack", "trainer", "tools", "benchmarks"):
        for node in definitions(parse(path)):
            if isinstance(node, ast.ClassDef) and node.name != "Config":  # torchtitan's own name for settings
                places[node.name].append(where(path, node.lineno))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_a_module_name_is_used_once() -> None:
    names: dict[str, list[str]] = defaultdict(list)
    for path in paths("mmpack", "tools"):
        if path.name not in PARALLEL and path.parent.name != "cli":
            names[path.name].append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in names.items() if len(found) > 1} == {}


def test_a_docstring_stands_by_itself() -> None:
    wrong = []
    for path in paths(*FOLDERS):
        tree = parse(path)
        for node in (tree, *definitions(tree)):
            text = ast.get_docstring(node) or ""  # type: ignore[arg-type]
            first = re.match(r"\W*(\w+)", text)
            if first and first.group(1) in LEANING:
                wrong.append(f"{where(path, getattr(node, 'lineno', 1))}: {text.splitlines()[0]}")
    assert wrong == []


def test_every_public_definition_of_the_library_has_a_docstring() -> None:
    missing = [
        f"{where(path, node.lineno)}: {node.name}"
        for path in paths("mmpack", "tools")
        for node in parse(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and not any("overload" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]
    assert missing == []


def test_texts_and_names_use_the_words_of_the_field() -> None:
    found = []
    for path in paths(*FOLDERS):
        if path == Path(__file__):
            continue
        source = path.read_text(encoding="utf-8")
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            text = token.string
            if token.type == tokenize.NAME:
                text = text.replace("_", " ")
            elif token.type not in (tokenize.STRING, tokenize.COMMENT):
                continue
            found += [
                f"{where(path, token.start[0])}: {match.group(0)}: {text.strip()[:80]}"
                for match in FORBIDDEN.finditer(text)
            ]
    assert found == []


def test_a_public_function_takes_few_parameters() -> None:
    wrong = []
    for path in paths("mmpack", "tools", "benchmarks"):
        if path.parent.name == "cli":
            continue
        for node in definitions(parse(path)):
            if not isinstance(node, ast.FunctionDef) or (
                node.name.startswith("_") and node.name != "__init__"
            ):
                continue
            if any("njit" in ast.unparse(decorator) for decorator in node.decorator_list):
                continue
            arguments = node.args
            names = [
                argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
            ]
            names = [name for name in names if name not in ("self", "cls")]
            if len(names) > MAX_PARAMETERS:
                wrong.append(f"{where(path, node.lineno)}: {node.name}({', '.join(names)})")
    assert wrong == []


def test_a_file_can_be_read_at_one_sitting() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in paths("mmpack", "trainer", "tools", "benchmarks")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert long == {}


def test_every_definition_is_used() -> None:
    """Counts names as words outside of the tests: a name that occurs once is defined and never used.

    Methods of public classes are exempt: users call them.
    """
    words: Counter[str] = Counter()
    for path in paths("mmpack", "tools", "benchmarks", "examples", "trainer"):
        words.update(re.findall(r"[A-Za-z_]\w*", path.read_text(encoding="utf-8")))
    unused = []
    for path in paths("mmpack", "tools", "benchmarks"):
        tree = parse(path)
        for node in definitions(tree):
            is_internal = node in tree.body or (node.name.startswith("_") and not node.name.startswith("__"))
            if words[node.name] == 1 and is_internal:
                unused.append(f"{where(path, node.lineno)}: {node.name}")
    assert unused == []


PACKAGES = sorted(
    ".".join(path.parent.relative_to(ROOT).parts)
    for path in (ROOT / "mmpack").rglob("__init__.py")
    if "__all__" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("package", PACKAGES)
def test_dir_lists_what_is_public_and_all_of_it_loads(package: str) -> None:
    module = import_module(package)
    assert dir(module) == sorted(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_the_public_names_are_those_of_the_documents() -> None:
    import mmpack

    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## The public face", 1)[1].split("\n## ", 1)[0]
    documented = set(re.findall(r"`(\w+)`", section.split("\n\n", 1)[1]))
    assert documented == set(mmpack.__all__)


def test_ruff_looks_into_every_folder() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--show-files", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    seen = {Path(line).resolve() for line in shown.splitlines()}
    assert [path for path in paths(*FOLDERS, "trainer") if path.resolve() not in seen] == []
