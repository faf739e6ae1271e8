# SPDX-License-Identifier: Apache-2.0
"""What the package offers, what importing it costs, and the rules of its files."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import secure_fl

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "secure_fl"
FOLDERS = ("secure_fl", "tests", "examples", "benchmarks", "protocols")
LICENCE = "# SPDX-License-Identifier: Apache-2.0\n"
SLOW = {"torch", "opacus", "dp_accounting", "matplotlib", "jinja2", "scipy", "sklearn"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for name in folders for path in (ROOT / name).rglob("*.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def modules() -> list[str]:
    """Every module of the package by its dotted name."""
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in SOURCES]
    return [name.removesuffix(".__init__") for name in names]


SOURCES = sources("secure_fl")


# -- the public surface ----------------------------------------------------------------


def test_the_names_of_the_package() -> None:
    assert sorted(secure_fl.__all__) == dir(secure_fl)
    assert len(set(secure_fl.__all__)) == len(secure_fl.__all__)
    for name in secure_fl.__all__:
        assert getattr(secure_fl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = secure_fl.nothing


def test_the_version_is_the_packages() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{secure_fl.__version__}"' in text


@pytest.mark.parametrize("name", modules())
def test_a_module_offers_what_it_says(name: str) -> None:
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", None)
    if listed is None:  # a package that only groups its modules
        assert name.count(".") == 1
        assert not [x for x in vars(module) if not x.startswith("_") and own(module, x)]
        return
    for offered in listed:
        assert hasattr(module, offered), offered
    assert len(set(listed)) == len(listed)


def own(module: ModuleType, name: str) -> bool:
    """Whether ``name`` is a class or function that ``module`` itself defines."""
    value = vars(module)[name]
    return getattr(value, "__module__", None) == module.__name__


def test_public_functions_take_few_positions() -> None:
    for name in secure_fl.__all__:
        value = getattr(secure_fl, name)
        if inspect.isfunction(value):
            positional = [
                p.name
                for p in inspect.signature(value).parameters.values()
                if p.kind is not p.KEYWORD_ONLY
            ]
            assert len(positional) <= 2, name


def offered_functions(name: str) -> Iterator[Callable[..., object]]:
    """What the module ``name`` lists: functions, and public methods it defines."""
    module = importlib.import_module(name)
    for offered in getattr(module, "__all__", ()):
        value = vars(module).get(offered)
        if inspect.isfunction(value):
            yield value
        elif inspect.isclass(value):
            for inner, method in vars(value).items():
                public = inner == "__init__" or not inner.startswith("_")
                if inspect.isfunction(method) and method.__module__ == name and public:
                    yield method


@pytest.mark.parametrize("name", modules())
def test_a_mistyped_argument_is_an_error(name: str) -> None:
    """Nothing offered takes ``**kwargs``."""
    for function in offered_functions(name):
        kinds = [p.kind for p in inspect.signature(function).parameters.values()]
        assert inspect.Parameter.VAR_KEYWORD not in kinds, function.__qualname__


# -- imports ---------------------------------------------------------------------------


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``statement``."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return {name.partition(".")[0] for name in json.loads(ran.stdout)}


@pytest.mark.parametrize(
    "statement",
    [
        "import secure_fl",
        "import secure_fl; secure_fl.load_plan; secure_fl.unprotected",
        "import secure_fl; secure_fl.run; secure_fl.secure_sum",
        "import secure_fl; secure_fl.verify_run; secure_fl.Report",
        "import secure_fl.cli.main",
    ],
)
def test_an_import_is_quick(statement: str) -> None:
    assert not loaded_by(statement) & SLOW


def test_the_bare_import_loads_next_to_nothing() -> None:
    assert not loaded_by("import secure_fl") & {"numpy", "pydantic", "cryptography"}


def imported(path: Path) -> Iterator[str]:
    """Top-level names of all imports, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module is not None
            yield node.module.partition(".")[0]


def test_only_training_imports_torch() -> None:
    for path in SOURCES:
        if path.parent != PACKAGE / "training":
            assert not set(imported(path)) & {"torch", "opacus"}, relative(path)


def test_the_floors_hold() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    if not program.exists():
        pytest.skip("import-linter is not installed")
    ran = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout


# -- files -----------------------------------------------------------------------------


def test_every_file_is_licensed() -> None:
    found = sources(*FOLDERS)
    assert len(found) > 60
    for path in found:
        assert path.read_text().startswith(LICENCE), relative(path)


def test_a_module_reads_in_one_sitting() -> None:
    about_500 = 550
    for path in SOURCES:
        assert len(path.read_text().splitlines()) < about_500, relative(path)


def test_nothing_is_left_to_do() -> None:
    words = ["TO" + "DO", "FIX" + "ME", "XX" + "X"]
    for path in sources(*FOLDERS):
        text = path.read_text()
        assert not [word for word in words if word in text], relative(path)
