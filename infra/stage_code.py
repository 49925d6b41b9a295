"""The source below a stage, as far as it can change what the stage writes.

Comments, layout, docstrings, descriptions of settings, texts of exceptions and the location of a
module do not count. Files that a module's source names, such as templates, do.
"""

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = ("recsys_core", "tasks")
ENGINE = "tasks.engine"
"""Runs stages but does not affect their files, so modules that only it imports do not count."""


@dataclass(frozen=True)
class Module:
    """The part of a module's source that can change a stage's output.

    Attributes:
        body: Hash of its syntax tree, without its imports of `PACKAGES`.
        code: Hash of the body, of the files that it names, and of what it imports from where: of
            the imported module's body, not its name, so that a module may move.
        imports: Modules of `PACKAGES` that it imports, anywhere in it.
        libraries: Top-level names of everything else that it imports.
    """

    body: str
    code: str
    imports: tuple[str, ...]
    libraries: tuple[str, ...]


def read_modules(root: Path, packages: Sequence[str] = PACKAGES) -> dict[str, Module]:
    """All modules below a root, by dotted name; reads the source and imports nothing.

    Args:
        root: Folder that holds the packages.
        packages: Top-level packages.
    """
    paths = {
        _dotted(path, root): path
        for package in packages
        for path in sorted((root / package).rglob("*.py"))
    }
    parsed = {name: _parse(path.read_bytes(), frozenset(paths)) for name, path in paths.items()}
    bodies = {name: body for name, (body, _) in parsed.items()}
    others = _other_files(root, packages)
    modules: dict[str, Module] = {}
    for name, (_, imported) in parsed.items():
        own = [
            (target, names)
            for target, names in imported
            if target in paths and not _is_engine(target)
        ]
        uses = sorted((bodies[target], names) for target, names in own)
        code = digest([bodies[name], uses, _companions(paths[name], others)])
        imports = {target for target, _ in own}
        libraries = {target.split(".")[0] for target, _ in imported if target not in paths}
        modules[name] = Module(bodies[name], code, tuple(sorted(imports)), tuple(sorted(libraries)))
    return modules


def below(module: str, modules: Mapping[str, Module]) -> set[str]:
    """Names of a module, its packages and everything that they import, without the engine."""
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += modules[name].imports
            parent = name.rpartition(".")[0]
            waiting += [parent] if parent in modules else []
    return reached


def _is_engine(name: str) -> bool:
    return name == ENGINE or name.startswith(f"{ENGINE}.")


def digest(value: object) -> str:
    """Short hash of a text or of a JSON-serialisable value."""
    text = value if isinstance(value, str) else json.dumps(value)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _dotted(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _other_files(root: Path, packages: Sequence[str]) -> dict[str, Path]:
    """Templates and other files of the packages by name."""
    return {
        other.name: other
        for package in packages
        for other in (root / package).rglob("*.*")
        if other.suffix not in (".py", ".pyc") and other.is_file()
    }


def _companions(path: Path, others: Mapping[str, Path]) -> list[str]:
    """Hashes of the other files that a module's source names, directly or not."""
    waiting, named = [path], set[str]()
    while waiting:
        text = waiting.pop().read_text(encoding="utf-8")
        new = {name for name in others if name in text} - named
        named |= new
        waiting += [others[name] for name in new]
    return sorted(digest(others[name].read_text(encoding="utf-8")) for name in named)


class _WithoutProse(ast.NodeTransformer):
    """Drops text that is for readers of the source and users only."""

    def visit(self, node: ast.AST) -> Any:
        """Drop docstrings and type-checking imports, then visit the children."""
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # pyright: ignore[reportAttributeAccessIssue]
                statement
                for statement in body
                if not _is_text(statement) and not _is_for_types(statement)
            ]
        return super().visit(node)

    def visit_Assign(self, node: ast.Assign) -> Any:
        """`msg = "..."`: the text of an exception."""
        is_message = [ast.unparse(target) for target in node.targets] == ["msg"]
        return None if is_message else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> Any:
        """`raise SomeError(msg)` or with the text itself."""
        if isinstance(node.exc, ast.Call):
            node.exc.args = [part for part in node.exc.args if not _is_message(part)]
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> Any:
        """`Field(..., description="...")`."""
        if ast.unparse(node.func) == "Field":
            node.keywords = [word for word in node.keywords if word.arg != "description"]
        return self.generic_visit(node)


def _is_message(node: ast.expr) -> bool:
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return is_text or isinstance(node, ast.JoinedStr) or ast.unparse(node) == "msg"


@cache
def _parse(source: bytes, own: frozenset[str]) -> tuple[str, list[tuple[str, str]]]:
    """The hash of a module's body, and its imports; `own` are the names of our modules."""
    tree = _WithoutProse().visit(ast.parse(source))
    imports = list(_imports(tree, own))
    return digest(ast.dump(_WithoutImports(own).visit(tree))), imports


def _is_text(statement: ast.stmt) -> bool:
    """Whether it is a docstring, or the text below a constant that documents it."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _is_for_types(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"


class _WithoutImports(ast.NodeTransformer):
    """Drops imports of our modules, so that a module may move."""

    def __init__(self, own: frozenset[str]) -> None:
        self._own = own

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        """`from recsys_core.artifacts import Artifact`."""
        return None if any(name in self._own for name, _ in _imports(node, self._own)) else node


def _imports(tree: ast.AST, own: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The imports as (module, "a as b")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, f"{alias.name} as {alias.asname}"
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in own:
                    yield inner, f"module as {alias.asname or alias.name}"
                else:
                    yield node.module, f"{alias.name} as {alias.asname}"
