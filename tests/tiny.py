"""A night so small that it takes seconds."""

from datetime import date
from pathlib import Path
from typing import Any

RUN_DATE = date(2026, 3, 31)


def tiny_settings(workspace: Path) -> dict[str, Any]:
    """Settings of a night on a synthetic world of 200 users, as a TOML file would hold them."""
    training = {"epochs": 2, "batch_size": 64, "validate_every": 1, "learning_rate": 5e-3}
    model = {"embedding_dim": 32, "n_layers": 1, "ffn_dim": 32, "max_length": 16}
    return {
        "name": "tiny",
        "workspace": str(workspace),
        "device": "cpu",
        "synthetic": {
            "folder": str(workspace / "world"),
            "days": 8,
            "world": {"n_users": 200, "n_items": 80},
        },
        "prepare": {"n_buckets": 2},
        "recipe": {"mode": "manual"},
        "teacher": {
            "model": model | {"event_kinds": True, "time_gaps": True},
            "training": training,
            "content_features": 32,
        },
        "student": {"model": model, "training": training, "content_features": 32},
        "compression": {
            "recovery": {"epochs": 1, "validate_every": 1, "learning_rate": 1e-3},
            "min_overlap_at_10": 0.5,
        },
        "evaluation": {"n_resamples": 200},
        "gate": {
            "rules": [
                {"name": "ranks at all", "metric": "recall_at_10", "at_least": 0.0},
                {"name": "champion", "relative_to": "champion", "margin": 0.9},
            ]
        },
    }


def as_toml(fields: dict[str, Any], prefix: str = "") -> str:
    """Nested tables as TOML; lists of tables as inline ones."""
    tables = {name: value for name, value in fields.items() if isinstance(value, dict)}
    lines = [f"{name} = {_literal(value)}" for name, value in fields.items() if name not in tables]
    for name, table in tables.items():
        lines += [f"[{prefix}{name}]", as_toml(table, f"{prefix}{name}.")]
    return "\n".join(lines)


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_literal(part) for part in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_literal(part)}" for name, part in value.items()) + "}"
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else str(value)
