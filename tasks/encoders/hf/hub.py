"""Files of a model of the Hugging Face Hub, at one commit, verified."""

from __future__ import annotations

import hashlib
import os
import shutil
from functools import partial
from pathlib import Path

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import disable_progress_bars

from tasks.encoders.hf.files import CONFIG_FILE, model_files
from tasks.encoders.node_cache import on_this_node, sha256_of
from tasks.errors import InvalidEncoder, StorageError


def fetch(model: str, revision: str) -> Path:
    """The directory with the files of ``ORG/MODEL`` at a commit, downloaded if this node does not have it yet.

    ``HF_ENDPOINT`` and ``HF_TOKEN`` mean what they mean to Hugging Face's own tools.

    :raises InvalidEncoder: the Hub has no such model or commit, or does not give it to this user.
    :raises StorageError: the Hub cannot be reached, or gave other bytes than it announced.
    """
    return on_this_node(f"hf/{model}/{revision}", partial(_download, model, revision))


def _download(model: str, revision: str, into: Path) -> None:
    disable_progress_bars()
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    address = f"hf://{model}@{revision}"
    try:
        listed = hub.model_info(model, revision=revision, files_metadata=True).siblings or []
        files = {file.rfilename: file for file in listed}
        names = model_files(files)
        if CONFIG_FILE not in names:
            raise InvalidEncoder(f"{address} holds no {CONFIG_FILE}: it is not in the layout of transformers")
        for name in names:
            hub.hf_hub_download(model, name, revision=revision, local_dir=into)
            _verify(into / name, files[name], address)
    except GatedRepoError as error:
        raise InvalidEncoder(
            f"{address} is given only to users who accepted its terms: accept them on {hub.endpoint}/{model} and "
            "set HF_TOKEN for the workers"
        ) from error
    except RevisionNotFoundError as error:
        raise InvalidEncoder(
            f"{hub.endpoint}/{model} has no commit {revision}; its page shows them under 'Files and versions', "
            "'History'"
        ) from error
    except RepositoryNotFoundError as error:
        raise InvalidEncoder(
            f"{hub.endpoint} has no public model {model}; set HF_TOKEN for a private one"
        ) from error
    except (httpx2.HTTPError, OSError) as error:  # OSError: offline mode, server errors, no space left
        raise StorageError(
            f"{address} is not on this node and cannot be fetched from {hub.endpoint}: {error}. Where nodes have "
            f"no way there, run `hf download {model} --revision {revision} --local-dir DIRECTORY` elsewhere, copy "
            "the directory to all nodes, and write file:///DIRECTORY instead"
        ) from error
    shutil.rmtree(into / ".cache", ignore_errors=True)  # hf_hub_download's own notes


def _verify(path: Path, announced: RepoSibling, address: str) -> None:
    """Compare a file with what the Hub lists: SHA-256 of large files, git's blob id of the others."""
    expected: str | None
    if announced.lfs is not None:
        expected, found = announced.lfs.sha256, sha256_of(path)
    else:
        content = path.read_bytes()
        expected, found = announced.blob_id, hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if expected != found:
        raise StorageError(
            f"{path.name} of {address} arrived with checksum {found}, but the Hub lists {expected}"
        )
