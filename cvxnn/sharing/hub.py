"""Upload of estimators to the Hub, and their download: numbers and JSON, no code."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._extras import require
from cvxnn.files.hub_access import hub_or_cache, why_unreachable
from cvxnn.persistence import load, save
from cvxnn.sharing.card import model_card

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MODEL_FILE = "model.safetensors"
"""Name of the file of the estimator in a repository."""


def push_to_hub(
    estimator: Any,
    repository: str,
    *,
    measurements: Mapping[str, Any] | None = None,
    notes: str = "",
    private: bool = True,
    revision: str | None = None,
    api: HfApi | None = None,
) -> str:
    """Upload a fitted estimator and its model card to the Hub, in one commit.

    The repository has two files: ``model.safetensors``, as :func:`cvxnn.save` writes it, and
    ``README.md``, the card. This needs the extra ``hub``, and a login (``hf auth login``).

    Parameters
    ----------
    estimator : estimator of cvxnn
        Fitted estimator that :func:`cvxnn.save` takes.
    repository : str
        ``OWNER/NAME``; it is created if it does not exist.
    measurements : mapping, optional
        Measurements of the head, as ``cvxnn fit`` writes them beside it; see :func:`model_card`.
    notes : str, default=""
        Your own text for the card, in Markdown: data, purpose, limits.
    private : bool, default=True
        Whether a repository that is created is private. One that exists stays as it is.
    revision : str, optional
        Branch to upload to; by default the main one.
    api : huggingface_hub.HfApi, optional
        Client with an address and a token of its own; by default that of your login.

    Returns
    -------
    str
        Address of the commit.

    Raises
    ------
    ImportError
        If huggingface_hub is missing; install ``cvxnn[hub]``.
    OSError
        If the Hub cannot be reached, or does not let you write.
    TypeError
        If the estimator cannot be saved; see :func:`cvxnn.save`.
    ValueError
        If `measurements` are of another head.
    """
    hub = require("huggingface_hub", extra="hub")
    card = model_card(estimator, repository, measurements=measurements, notes=notes)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / MODEL_FILE
        save(estimator, file)
        content = file.read_bytes()
    errors = require("huggingface_hub.errors", extra="hub")
    client = hub.HfApi() if api is None else api
    if reason := why_unreachable(client.endpoint):
        raise OSError(
            f"{reason}; nothing was uploaded to {repository}. Check the network, a proxy and "
            "HF_ENDPOINT, and upload again"
        )
    try:
        client.create_repo(repository, private=private, exist_ok=True)
        commit = client.create_commit(
            repository,
            [
                hub.CommitOperationAdd(MODEL_FILE, content),
                hub.CommitOperationAdd("README.md", card.encode()),
            ],
            commit_message=f"Upload {type(estimator).__name__} with its model card",
            revision=revision,
        )
    except errors.HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise PermissionError(
            f"{client.endpoint} does not let you write {repository} "
            f"({str(error).splitlines()[0]}); log in (hf auth login) to an account that may, with "
            "a token that can write"
        ) from error
    return str(commit.commit_url)


def from_pretrained(
    repository: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    api: HfApi | None = None,
) -> Any:
    """Download an estimator that :func:`push_to_hub` uploaded; its predictions are bit-identical.

    One file is downloaded, and kept in the cache of the Hub. It holds numbers and JSON, which
    :func:`cvxnn.load` checks before it uses them: no code of the repository runs. This needs the
    extra ``hub``.

    Parameters
    ----------
    repository : str
        ``OWNER/NAME``.
    revision : str, optional
        Branch, tag or commit; a commit makes sure that you get what you looked at. By default the
        newest state of the main branch.
    cache_dir : path-like, optional
        Folder for what is downloaded; by default the cache of the Hub.
    api : huggingface_hub.HfApi, optional
        Client with an address and a token of its own; by default that of your login.

    Returns
    -------
    estimator of cvxnn
        Fitted estimator of the class that was uploaded.

    Raises
    ------
    ImportError
        If huggingface_hub is missing; install ``cvxnn[hub]``.
    FileNotFoundError
        If there is no such repository, or it has no estimator of cvxnn.
    OSError
        If the Hub cannot be reached, and its cache lacks the file.
    ValueError
        If the file is damaged, or of another format, version or class.
    """
    hub = require("huggingface_hub", extra="hub")
    errors = require("huggingface_hub.errors", extra="hub")
    client = hub.HfApi() if api is None else api
    remedy = "Without the Hub, cvxnn.load reads a file that cvxnn.save wrote"
    try:
        with hub_or_cache(f"download {repository}", remedy, client.endpoint):
            file = client.hf_hub_download(
                repository, MODEL_FILE, revision=revision, cache_dir=cache_dir
            )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        at = "" if revision is None else f" at {revision!r}"
        raise FileNotFoundError(
            f"{repository}{at}: not found on the Hub; expected OWNER/NAME of a repository that is "
            "public, or that your login (hf auth login) may read"
        ) from error
    except errors.RemoteEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{repository}: no file {MODEL_FILE}; expected a repository that "
            "cvxnn.sharing.push_to_hub made"
        ) from error
    return load(file)
