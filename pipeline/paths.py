"""Paths of the configuration."""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def resolve_path(path: str) -> Path:
    """Return ``path`` as it stands if it exists, else inside the project folder."""
    given = Path(path).expanduser()
    inside = PROJECT_ROOT / given
    return inside if not given.exists() and inside.exists() else given
