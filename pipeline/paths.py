"""Paths of the configuration."""

from pathlib import Path

from pipeline.config import PROJECT_ROOT


def resolve_path(path: str) -> Path:
    """Return ``path`` as it stands if it exists, else inside the project folder."""
    given = Path(path).expanduser()
    inside = PROJECT_ROOT / given
    return inside if not given.exists() and inside.exists() else given
