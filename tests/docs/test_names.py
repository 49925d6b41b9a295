"""Names in the documents exist: settings, commands, columns, exceptions, files, links.

A code span that names nothing of this project must be in `FOREIGN`, so no name goes unchecked.
A word alone, such as a column, must be a string of the code, a setting or a module.
"""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.config import ConfigError, NightlyConfig, load_config
from tasks.registry.store import student_name
from tests.docs import project
from tests.docs.documents import (
    DOCUMENTS,
    ROOT,
    Block,
    anchors,
    blocks,
    code_spans,
    link_targets,
    tree_paths,
)

FOREIGN = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "make",
        "mostly",
        "strptime",
        "WHY",
        "torch.compile",
        "x + σ(W x) ⊙ f(LN x)",
    }
)
"""Code spans that are not names of this project: other programs, formulas, values of users."""

PROGRAMS = frozenset({"curl", "export", "mlflow", "pre-commit"})
"""Other people's commands in the examples."""

MADE_BY_A_NIGHT = frozenset({"data", "workspace"})
"""Folders that are there only after a night; the files that documents name in them may not be."""

_FILE = re.compile(
    r".*\.(bz2|css|csv|dat|db|html|j2|json|log|md|onnx|parquet|py|safetensors|toml|txt|yaml)"
)
_DOTTED = re.compile(r"[a-z]\w*(\.[a-z]\w*)+")
_HEADER = re.compile(r"\[{1,2}([\w.]+)\]{1,2}")
_EXTRA = re.compile(r"recdistill\[([\w,]+)\]")
_PHRASE = re.compile(r"[a-z_]+( [a-z_]+)+")


def problems(markdown: str, path: Path, scratch: Path) -> Iterator[str]:
    """What a document names that does not exist, a sentence each."""
    for block in blocks(markdown):
        yield from block_problems(block, scratch)
    for span in code_spans(markdown):
        if span not in FOREIGN and (problem := span_problem(span)):
            yield f"`{span}`: {problem}"
    for target in link_targets(markdown):
        if problem := link_problem(target, markdown, path):
            yield f"link {target}: {problem}"


def block_problems(block: Block, scratch: Path) -> Iterator[str]:
    """What is wrong with an example."""
    match block.language:
        case "toml":
            yield from toml_problems(block.text, scratch)
        case "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                command = line.partition(" #")[0].strip()
                if command and (problem := shell_problem(command)):
                    yield f"{command}: {problem}"
        case "python":
            yield from python_problems(block.text)
        case "text":
            if block.text.split()[0].endswith("/"):
                missing = [name for name in tree_paths(block.text) if not (ROOT / name).exists()]
                yield from (f"the tree shows {name}, which does not exist" for name in missing)
        case "mermaid":
            return
        case _:
            yield f"a block in {block.language or 'no language'} is not checked"


def python_problems(text: str) -> Iterator[str]:
    """Parse an example; the code must have its keyword arguments."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield f"{error} in {text}"
        return
    keywords = [node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    unknown = [name for name in keywords if name and name not in project.vocabulary()]
    yield from (f"no function of the code has an argument {name}" for name in unknown)


def toml_problems(text: str, scratch: Path) -> Iterator[str]:
    """Load an example as a configuration; a fragment of `[source]` gets a path to read from."""
    path = "interactions = 'events'\n"
    try:
        source = tomllib.loads(text).get("source")
        if source is not None and "interactions" not in source:
            header = "[source]\n"
            text = text.replace(header, header + path) if header in text else header + path + text
        file = scratch / "example.toml"
        file.write_text(text, encoding="utf-8")
        load_config(file)
    except (ConfigError, tomllib.TOMLDecodeError) as error:
        yield f"{error} in {text}"


def span_problem(span: str) -> str | None:
    """What is wrong with a code span; None: nothing."""
    if header := _HEADER.fullmatch(span):
        return None if project.is_setting(header[1]) else "no such table of settings"
    program = span.split()[0]
    if program in ("recdistill", "make", "python", "pip", *PROGRAMS) and program != span:
        return shell_problem(span)
    if span.startswith("--"):
        return None if program in project.all_options() else "no command has this option"
    if " = " in span:
        return assignment_problem(span)
    folder = span.split("/")[0]
    if "/" in span and folder not in MADE_BY_A_NIGHT and (ROOT / folder).is_dir():
        return None if (ROOT / span).exists() else "no such file"
    if re.fullmatch(r"[A-Z]\w*Error", span):
        return None if span in project.exceptions() else "no such exception"
    if _DOTTED.fullmatch(span) and not _FILE.fullmatch(span):
        exists = project.is_setting(span) or project.is_object(span)
        return None if exists else "no such setting, module or function"
    if _PHRASE.fullmatch(span):
        return None if span in project.literals() else "the code has no such string"
    if re.fullmatch(r"[a-z]\w*", span):
        return None if span in project.bare_names() else "no such column, setting or module"
    unknown = project.unknown_words(span)
    return f"the code has no {unknown[0]}" if unknown else None


def shell_problem(line: str) -> str | None:
    """What is wrong with a command; None: nothing."""
    program, *words = shlex.split(line)
    match program:
        case "recdistill":
            return project.command_problem(line)
        case "make":
            return None if set(words) <= project.make_targets() else "no such target"
        case "python":
            return project.python_problem(line)
        case "pip" if words == ["install", "dist/*.whl", "--constraint", "infra/constraints.txt"]:
            return None if "wheel" in project.make_targets() else "nothing builds dist/*.whl"
        case "pip":
            named = {name for extra in _EXTRA.findall(line) for name in extra.split(",")}
            return None if named and named <= project.extras() else "no such extra"
        case _:
            return None if program in PROGRAMS else f"no such program: {program}"


def assignment_problem(span: str) -> str | None:
    """What is wrong with a setting and its value; a bare name may be of any table."""
    name = span.partition(" = ")[0].strip()
    try:
        tomllib.loads(span)
    except tomllib.TOMLDecodeError as error:
        return str(error)
    exists = project.is_setting(name) if "." in name else name in project.bare_names()
    return None if exists else "no such setting"


def link_problem(target: str, markdown: str, path: Path) -> str | None:
    """What is wrong with a link inside the repository; None: nothing."""
    if target.startswith("https://"):
        return None
    name, _, anchor = target.partition("#")
    file = path.parent / name if name else path
    if not file.exists():
        return "no such file"
    text = file.read_text(encoding="utf-8") if name and anchor else markdown
    return None if not anchor or anchor in anchors(text) else "no such heading"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_exists(path: Path, tmp_path: Path) -> None:
    assert list(problems(path.read_text(encoding="utf-8"), path, tmp_path)) == []


def test_a_span_is_foreign_only_if_a_document_has_it() -> None:
    spans = {span for path in DOCUMENTS for span in code_spans(path.read_text(encoding="utf-8"))}
    assert spans >= FOREIGN


def test_the_tree_shows_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    trees = [block.text for block in blocks(text) if block.language == "text"]
    shown = {name for tree in trees for name in tree_paths(tree)}
    packages = {
        f"{path.parent.relative_to(ROOT)}/"
        for package in project.PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert packages - shown == set()


def test_the_readme_loads_the_model_that_the_default_night_registers() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"models:/{student_name(NightlyConfig().name)}@champion" in text


RIGHT = (
    "`target_weight` `TrainingError` `teacher.model` `[teacher.model]` `recdistill nightly --plan` "
    "`python docs/examples/llm_teacher.py --per-user 2` "
    "`make lint` `python -m benchmarks.night --final` `flows/config.py` `exclude_seen = true` "
    '`pip install "recdistill[text]"` `recsys_core.training.loop.fit` `--dry-run` `event mix`\n'
    "[data](docs/data.md#histories)\n"
    "```sh\nrecdistill data backfill --from A --to B [--config FILE]\n```\n"
    "```toml\n[prepare]\nsplit = 'leave_one_out'\n```\n"
    "```text\nflows/    the flows\n  cli/    the command line\n```\n"
)

MISSPELT = {
    "column": ("target_weight", "is_target"),
    "exception": ("TrainingError", "SchoolingError"),
    "setting": ("`teacher.model`", "`teacher.form`"),
    "table of settings": ("[teacher.model]", "[tutor.model]"),
    "assigned setting": ("exclude_seen", "exclude_heard"),
    "option": ("nightly --plan", "nightly --planet"),
    "option alone": ("--dry-run`", "--wet-run`"),
    "command": ("recdistill nightly", "recdistill monthly"),
    "command in a block": ("data backfill", "data refill"),
    "option of another command": ("--from A", "--plan"),
    "target": ("make lint", "make lunch"),
    "module": ("benchmarks.night", "benchmarks.knight"),
    "option of a benchmark": ("--final", "--finale"),
    "example": ("llm_teacher.py", "llm_tutor.py"),
    "option of an example": ("--per-user", "--per-person"),
    "extra": ("recdistill[text]", "recdistill[prose]"),
    "function": ("loop.fit", "loop.fits"),
    "path": ("flows/config.py", "flows/configs.py"),
    "folder at the top": ("flows/config.py", "flaws/config.py"),
    "name of a rule": ("event mix", "event mixer"),
    "link": ("docs/data.md#", "docs/dates.md#"),
    "anchor": ("#histories", "#history"),
    "setting in a block": ("split =", "splits ="),
    "value in a block": ("'leave_one_out'", "'leave_two_out'"),
    "tree": ("  cli/", "  clip/"),
    "language": ("```sh", "```zsh"),
}


def test_right_names_pass(tmp_path: Path) -> None:
    assert list(problems(RIGHT, ROOT / "README.md", tmp_path)) == []


@pytest.mark.parametrize(("right", "wrong"), MISSPELT.values(), ids=MISSPELT)
def test_a_misspelt_name_fails(right: str, wrong: str, tmp_path: Path) -> None:
    assert RIGHT.count(right) == 1
    found = list(problems(RIGHT.replace(right, wrong), ROOT / "README.md", tmp_path))
    assert len(found) == 1
