"""Upload an exported folder to the Hugging Face hub."""

from __future__ import annotations

import logging
from pathlib import Path

from falcon_ssl.core.errors import InputError, one_line
from falcon_ssl.core.extras import train_extra

logger = logging.getLogger(__name__)


def check_hub(repo: str) -> None:
    """Check, before any work, that the hub can be reached and lets the user in.

    Raises:
        InputError: It cannot, or does not, or ``repo`` is not OWNER/NAME.
    """
    with train_extra("--push_to_hub", extra="export"):
        from huggingface_hub import HfApi
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise InputError("no repository of the hub", received=repo, expected="OWNER/NAME")
    try:
        HfApi().whoami()
    except Exception as error:  # no token, no network: the library's own kinds
        raise InputError(
            "the Hugging Face hub does not let you in",
            received=one_line(error, named=True),
            expected="a network connection and a token",
            fix="run hf auth login, or leave --push_to_hub out",
        ) from error


def push(folder: Path, repo: str) -> None:
    """Upload a folder; a repository that does not exist yet is made, private.

    Raises:
        OSError: The hub refused it; the folder is complete on the disk.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder)
    except Exception as error:
        raise OSError(f"{folder} is written, but not uploaded: {error}") from error
    logger.info("uploaded to https://huggingface.co/%s; a new repository is private", repo)
