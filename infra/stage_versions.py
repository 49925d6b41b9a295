"""Report code that changed below a stage whose version did not.

    python -m infra.stage_versions                                   the check; part of `make lint`
    python -m infra.stage_versions --record                          after versions were raised
    python -m infra.stage_versions --neutral WHY [STAGE ...]         the outputs stay the same

A stage's key holds its declared version and not its code, so that a corrected typo retrains no
teacher. This check finds forgotten versions: it walks the source below each stage and compares it
with stage_versions.json, which is committed. Changed code needs a higher `version`, or a sentence
that explains why the stage's files stay the same.

Code that can't change an output does not count, see `infra.stage_code`. A library that a stage's
code imports must be among the stage's `libraries`, unless it decides no byte (`CARRIERS`).
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from infra.stage_code import Module, below, digest, read_modules

CARRIERS = {
    "jaxtyping": "annotations, checked in tests only",
    "markupsafe": "escapes text",
    "mlflow": "stores registered models; its formats carry their own version",
    "prefect": "shows and logs",
    "psutil": "measures",
    "pydantic": "checks settings, whose values are in the key",
    "rich": "shows progress",
    "safetensors": "stores numbers unchanged",
}
"""Libraries that decide no byte of an output, and why."""

NOT_USED = {
    "choose_recipe": {"torch": "counts events only"},
    "plan_teacher": {"liger-kernel": "nothing is trained", "pyarrow": "writes soft labels only"},
    "check_teacher": {
        "liger-kernel": "nothing is trained",
        "onnxruntime": "scores students only",
        "pandas": "queries students only",
        "scipy": "the similarities of item-kNN only",
    },
    "train_teacher": {
        "pyarrow": "writes soft labels only",
        "scipy": "the drift that plan_teacher measures only",
    },
    "distill": {
        "liger-kernel": "the distillation loss is not fused",
        "pyarrow": "writes soft labels only",
    },
    "control": {"pyarrow": "writes soft labels only"},
    "compress": {
        "liger-kernel": "the distillation loss is not fused",
        "pyarrow": "writes soft labels only",
        "scipy": "the similarities of item-kNN only",
    },
    "evaluate": {"pandas": "the packaged model's own interface only"},
    "register": {"numpy": "the smoke test only", "pandas": "the smoke test only"},
    "promote": {
        "numpy": "moves an alias only",
        "onnxruntime": "moves an alias only",
        "pandas": "moves an alias only",
    },
    "report": {"polars": "reads no table"},
}
"""Stage → libraries that the code below it imports but the stage does not use, and why."""

RECORD_IT = "python -m infra.stage_versions --record"
HINT = f"""Where a stage may write other files than before, raise `version` in
the stage's decorator and run `{RECORD_IT}`. Where its files stay the same, run
`python -m infra.stage_versions --neutral WHY STAGE ...`; without a stage it means all of them."""
RECORD = Path(__file__).with_name("stage_versions.json")


@dataclass(frozen=True)
class StageFacts:
    """The declaration of a stage.

    Attributes:
        module: Module that defines it.
        version: Its version.
        libraries: The distributions that it declares, with optional ones.
    """

    module: str
    version: int
    libraries: tuple[str, ...]


def problems(
    stages: Mapping[str, StageFacts], modules: Mapping[str, Module], record: Mapping[str, Any]
) -> Iterator[str]:
    """One sentence for each difference between the record and the code, with the remedy."""
    known = set(record["modules"].values())
    for name, stage in stages.items():
        reached = below(stage.module, modules)
        before = record["stages"].get(name)
        if before is None:
            yield f"{name} is new: run `{RECORD_IT}`."
        elif before["version"] != stage.version:
            yield f"{name} has version {stage.version}: run `{RECORD_IT}`."
        elif before["code"] != _code(reached, modules):
            changed = sorted(module for module in reached if modules[module].body not in known)
            where = ", ".join(changed) or "what is imported from where, or a template"
            yield f"{name}, version {stage.version}: the code below it changed ({where})."
        used = {library for module in reached for library in modules[module].libraries}
        declared = {*stage.libraries, *CARRIERS, *NOT_USED.get(name, ())}
        if missing := _undeclared(used, declared):
            yield (
                f"{name}: its code imports {', '.join(missing)}, which its `libraries` lack. A "
                "version that changes has to change the key."
            )
    for name in sorted(record["stages"].keys() - stages.keys()):
        yield f"{name} is gone: run `{RECORD_IT}`."


def recorded(
    stages: Mapping[str, StageFacts],
    modules: Mapping[str, Module],
    record: Mapping[str, Any],
    *,
    neutral: str | None = None,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """The updated record.

    Args:
        stages: The declared stages.
        modules: Source of the modules.
        record: The present record.
        neutral: Why the files of stages stay the same although code below them changed.
        only: Stages to which `neutral` applies, the others stay as they are; empty: all.

    Raises:
        SystemExit: The code below a stage changed, and neither its version nor `neutral` says so.
    """
    new: dict[str, Any] = {}
    undecided: list[str] = []
    for name, stage in stages.items():
        code = _code(below(stage.module, modules), modules)
        before = record["stages"].get(name)
        if before is None or before["version"] != stage.version:
            new[name] = {"version": stage.version, "code": code, "neutral": []}
        elif before["code"] == code:
            new[name] = before
        elif neutral and (not only or name in only):
            new[name] = {**before, "code": code, "neutral": [*before["neutral"], neutral]}
        else:
            new[name] = before
            undecided.append(name)
    if undecided and only:
        return {"modules": record["modules"], "stages": new}
    if undecided:
        names = ", ".join(undecided)
        msg = f"{names}: raise the version, or say why the files stay the same (--neutral)."
        raise SystemExit(msg)
    reached = {module for stage in stages.values() for module in below(stage.module, modules)}
    return {"modules": {name: modules[name].body for name in sorted(reached)}, "stages": new}


def declared_stages() -> dict[str, StageFacts]:
    """The stages of the pipeline."""
    from flows.pipeline import PIPELINE

    stages = [step.stage for step in PIPELINE.steps]
    return {
        stage.name: StageFacts(
            stage.body.__module__,
            stage.version,
            (*stage.libraries, *stage.optional_libraries),
        )
        for stage in stages
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the check, or update the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_AsWritten)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="with --neutral: only these")
    parser.add_argument("--record", action="store_true", help="write stage_versions.json anew")
    parser.add_argument("--neutral", metavar="WHY", help="why the outputs stay the same; records")
    given = parser.parse_args(arguments)
    stages, modules = declared_stages(), read_modules(Path(__file__).parents[1])
    empty: dict[str, Any] = {"modules": {}, "stages": {}}
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else empty
    if given.record or given.neutral:
        new = recorded(stages, modules, record, neutral=given.neutral, only=given.stages)
        RECORD.write_text(json.dumps(new, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return
    if differences := list(problems(stages, modules, record)):
        sys.exit("\n".join([*differences, "", HINT]))


class _AsWritten(argparse.RawDescriptionHelpFormatter):
    """Help text that keeps the line breaks of the docstring."""


def _code(reached: set[str], modules: Mapping[str, Module]) -> str:
    return digest(sorted(modules[name].code for name in reached))


def _undeclared(names: set[str], declared: set[str]) -> list[str]:
    """A distribution for each top-level name that no declared distribution provides.

    Several distributions may share a name, as those of MLflow do. The standard library has none.
    """
    providers = _providers()
    missing: set[str] = set()
    for name in names & providers.keys():
        distributions = {provider.lower().replace("_", "-") for provider in providers[name]}
        if not distributions & declared:
            missing.add(min(distributions))
    return sorted(missing)


@cache
def _providers() -> Mapping[str, list[str]]:
    """Top-level name → distributions that are installed."""
    return packages_distributions()


if __name__ == "__main__":
    main()
