"""Where the registry is."""

from pathlib import Path

from pydantic import Field

from recsys_core.settings import Settings


class RegistryConfig(Settings):
    """The MLflow store of runs and registered models."""

    tracking_uri: str | None = Field(
        None,
        description=(
            "MLflow tracking URI, for example http://127.0.0.1:5000; empty: a SQLite database and "
            "an artifact folder inside the workspace"
        ),
    )

    def resolved_uri(self, workspace: Path) -> str:
        """The tracking URI, also where none is set."""
        return self.tracking_uri or f"sqlite:///{workspace.absolute() / 'mlflow.db'}"
