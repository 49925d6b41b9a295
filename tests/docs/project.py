"""What the project has, by name: settings, commands, exceptions, modules, targets, other words."""

import ast
import re
import shlex
import tomllib
import typing
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import typer
from pydantic import BaseModel

from flows.cli.main import app
from flows.config import NightlyConfig
from tests.docs.documents import ROOT

PACKAGES = ("recsys_core", "tasks", "flows")
_WORD = re.compile(r"[^\W\d]\w*")


def is_setting(name: str) -> bool:
    """Whether a dotted name leads from `NightlyConfig` to one of its fields."""
    models: set[type[BaseModel]] = {NightlyConfig}
    for part in name.split("."):
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if not fields:
            return False
        models = {model for field in fields for model in _models_in(field.annotation)}
    return True


@cache
def bare_names() -> frozenset[str]:
    """What a word alone may name: a string of the code (a column, a key), a setting, a module."""
    modules = {part for path in sources() for part in path.relative_to(ROOT).with_suffix("").parts}
    return literals() | modules | set(_fields_of(NightlyConfig))


def _fields_of(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for inner in _models_in(field.annotation):
            yield from _fields_of(inner)


def _models_in(annotation: typing.Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def command_problem(line: str) -> str | None:
    """What is wrong with a call of `recdistill`; None: nothing."""
    words = shlex.split(line.replace("[", " ").replace("]", " "))[1:]
    command = typing.cast("typing.Any", typer.main.get_command(app))
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    options = {name: option for option in command.params for name in option.opts}
    n_places = sum(parameter.param_type_name == "argument" for parameter in command.params)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            n_places -= 1
            if n_places < 0:
                return f"`recdistill` has no command or argument {word!r} there"
        elif word not in options:
            return f"`recdistill` has no option {word} there"
        elif not options[word].is_flag and not words:
            return f"the option {word} lacks its value"
        elif not options[word].is_flag:
            words.pop(0)
    return None


@cache
def all_options() -> frozenset[str]:
    """Options of any command, any benchmark and any example."""
    scripts = (*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs" / "examples").glob("*.py"))
    return frozenset(_options_of(typer.main.get_command(app))).union(
        *map(benchmark_options, scripts)
    )


def _options_of(command: typing.Any) -> Iterator[str]:
    for parameter in command.params:
        yield from parameter.opts
    for inner in getattr(command, "commands", {}).values():
        yield from _options_of(inner)


def python_problem(line: str) -> str | None:
    """What is wrong with a call of `python -m` or of an example; None: nothing."""
    _, first, *words = shlex.split(line.replace("[", " ").replace("]", " "))
    named = words.pop(0) if first == "-m" else first
    path = ROOT / (f"{named.replace('.', '/')}.py" if first == "-m" else named)
    if not (is_module(named) if first == "-m" else path.is_file()):
        return f"there is no module or file {named}"
    known = benchmark_options(path) | benchmark_options(ROOT / "benchmarks" / "harness.py")
    unknown = [word for word in words if word.startswith("-") and word not in known]
    return f"{named} has no option {unknown[0]}" if unknown else None


def benchmark_options(path: Path) -> set[str]:
    """The options that a module gives to its parser."""
    return {
        argument.value
        for call in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def is_module(name: str) -> bool:
    """Whether a module or package of this project has this dotted name."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def is_object(name: str) -> bool:
    """Whether a dotted name is a module, or something that a module defines."""
    module, _, attribute = name.rpartition(".")
    if is_module(name):
        return True
    path = ROOT / f"{module.replace('.', '/')}.py"
    return path.exists() and attribute in {
        getattr(node, "name", None) for node in ast.parse(path.read_bytes()).body
    }


@cache
def make_targets() -> frozenset[str]:
    """Targets of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z0-9-]+):", text, re.MULTILINE))


@cache
def extras() -> frozenset[str]:
    """Optional dependencies of the distribution."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return frozenset(project["optional-dependencies"])


@cache
def exceptions() -> frozenset[str]:
    """Names of the exceptions that the packages define."""
    classes = {node.name: _bases(node) for node in _nodes() if isinstance(node, ast.ClassDef)}

    def is_exception(name: str) -> bool:
        if name in classes:
            return any(map(is_exception, classes[name]))
        return name.endswith(("Error", "Exception"))

    return frozenset(filter(is_exception, classes))


@cache
def literals() -> frozenset[str]:
    """Strings of the code that are no docstrings."""
    return frozenset(
        node.value
        for node in _nodes()
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


@cache
def vocabulary() -> frozenset[str]:
    """Every word that is a name or part of a string in the code, or is in a file of `infra`."""
    words = {word for text in literals() for word in _WORD.findall(text)}
    for node in _nodes():
        words |= {getattr(node, field, None) for field in ("id", "name", "attr", "arg")}
    for path in (ROOT / "infra").rglob("*.*"):
        words |= set(_WORD.findall(path.read_text(encoding="utf-8")))
    return bare_names() | {word for word in words if word}


def unknown_words(span: str) -> list[str]:
    """Words of a code span that the code does not have."""
    return [word for word in _WORD.findall(span) if word not in vocabulary()]


def sources() -> Iterator[Path]:
    """The Python files of the packages and the benchmarks."""
    for package in (*PACKAGES, "benchmarks"):
        yield from sorted((ROOT / package).rglob("*.py"))


@cache
def _nodes() -> tuple[ast.AST, ...]:
    """All syntax of the sources, without docstrings."""
    nodes: list[ast.AST] = []
    for path in sources():
        tree = ast.parse(path.read_bytes())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        nodes += [node for node in ast.walk(tree) if id(node) not in docstrings]
    return tuple(nodes)


def _bases(node: ast.ClassDef) -> list[str]:
    return [base.id for base in node.bases if isinstance(base, ast.Name)]
