"""Uploading an exported folder to the Hugging Face hub: only what was shown, only after a yes."""

from collections.abc import Callable
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError, RepositoryNotFoundError

from pipeline.errors import ConfigError, TrainingError, one_line


def check_target(api: HfApi, repository: str, public: bool) -> bool:
    """Return whether a repository is there already.

    Raises ConfigError for what is no OWNER/NAME, TrainingError without a login, where the hub does not answer, and for
    a repository of another visibility than asked for.
    """
    where = f"--push {repository}"
    if repository.count("/") != 1:
        raise ConfigError(f"{where}: name it as OWNER/NAME")
    try:
        api.whoami()
        private = bool(api.model_info(repository).private)
    except HFValidationError as error:
        raise ConfigError(f"{where}: {one_line(error)}") from error
    except LocalTokenNotFoundError as error:
        raise TrainingError(f"{where}: there is no token of the hub: log in with 'hf auth login'") from error
    except RepositoryNotFoundError:
        return False
    except (OSError, HTTPError) as error:
        raise TrainingError(f"{where}: {one_line(error)}: log in with 'hf auth login', or leave --push out") from error
    if private == public:
        there, remedy = ("private", "leave --public out") if private else ("public", "give --public")
        raise TrainingError(f"{where}: it is there and {there}: {remedy}, or name another repository")
    return True


def push(
    api: HfApi, folder: Path, repository: str, public: bool, confirm: Callable[[], bool], say: Callable[[str], object]
) -> None:
    """Upload a folder, if the user wants to after seeing what goes where.

    Args:
        api: The hub.
        folder: What is uploaded, all of it.
        repository: OWNER/NAME, made if it is not there.
        public: Whether everyone may read it.
        confirm: Asks the user.
        say: Shows a line.

    Raises:
        ConfigError, TrainingError: as ``check_target``, or the hub refuses.
    """
    is_there = check_target(api, repository, public)
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    kind = f"{'public, for everyone to read' if public else 'private'}, {'replacing files' if is_there else 'new'}"
    say(f"to upload to {api.endpoint}/{repository} ({kind}):")
    for name, size in {**dict(sorted(sizes.items())), "all": sum(sizes.values())}.items():
        say(f"  {name:<40} {size / 1e6:>12,.3f} MB")
    if not confirm():
        say("not uploaded")
        return
    try:
        if not is_there:
            api.create_repo(repository, private=not public)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload exported model")
    except (OSError, ValueError, HTTPError) as error:
        raise TrainingError(
            f"--push {repository}: {one_line(error)}: {folder} is whole, go on with 'hf upload {repository} {folder}'"
        ) from error
    say(f"uploaded to {api.endpoint}/{repository}")
