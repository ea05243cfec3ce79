"""Uploading an exported folder to the Hugging Face hub: only what was shown, only after a yes."""

from collections.abc import Callable
from pathlib import Path

import httpx
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from pipeline.errors import ConfigError, TrainingError, one_line


def check_login(api: HfApi, repository: str) -> None:
    """Raise ConfigError for what is no OWNER/NAME, and TrainingError where the hub knows no login."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"--push {repository}: {one_line(error)}") from error
    if repository.count("/") != 1:
        raise ConfigError(f"--push {repository}: name it as OWNER/NAME")
    try:
        api.whoami()
    except LocalTokenNotFoundError as error:
        raise TrainingError(
            "--push: there is no token of the hub: log in with 'hf auth login', or set HF_TOKEN"
        ) from error
    except (OSError, httpx.HTTPError) as error:
        raise TrainingError(
            f"--push: the hub does not answer for the login ({one_line(error)}): "
            "log in with 'hf auth login', or export without --push"
        ) from error


def push(
    api: HfApi, folder: Path, repository: str, public: bool, confirm: Callable[[], bool], say: Callable[[str], object]
) -> bool:
    """Upload a folder after showing what goes where; return whether it was wanted.

    Args:
        api: The hub.
        folder: What is uploaded, all of it.
        repository: OWNER/NAME, made if it is not there.
        public: Whether everyone may read it.
        confirm: Asks the user.
        say: Shows a line.

    Raises:
        TrainingError: the hub refuses, or has the repository with another visibility.
    """
    visibility = "public" if public else "private"
    try:
        there = _visibility(api, repository)
        if there not in (None, visibility):
            remedy = "give --public" if there == "public" else "leave --public out"
            raise TrainingError(f"--push {repository}: it is there and {there}: {remedy}, or name another repository")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        say(
            f"to upload to {repository} on {api.endpoint}, {visibility}, "
            + ("replacing files" if there else "new")
            + ":"
        )
        for path in files:
            say(f"  {path.relative_to(folder).as_posix():<40} {path.stat().st_size / 1e6:>12,.2f} MB")
        say(f"  {'all':<40} {sum(path.stat().st_size for path in files) / 1e6:>12,.2f} MB")
        if not confirm():
            return False
        if there is None:
            api.create_repo(repository, private=not public)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload exported model")
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise TrainingError(
            f"--push {repository}: {one_line(error)}: the folder {folder} is whole, upload it again with "
            f"'hf upload {repository} {folder} .'"
        ) from error
    say(f"uploaded to {api.endpoint}/{repository}")
    return True


def _visibility(api: HfApi, repository: str) -> str | None:
    try:
        return "private" if api.model_info(repository).private else "public"
    except RepositoryNotFoundError:
        return None
