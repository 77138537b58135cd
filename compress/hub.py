"""The Hugging Face Hub: what a base model's card says, and folders that are uploaded when that is asked for."""

import importlib.metadata
import sys
import warnings
from pathlib import Path

import yaml
from huggingface_hub import HfApi, constants, get_token, hf_hub_download, metadata_load
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

STALE = ["*.safetensors", "*.safetensors.index.json", "*.bin", "*.onnx*"]  # of an earlier model of the same name


def versions() -> dict[str, str]:
    """The versions of what a model is made with.

    Returns
    -------
    dict
        Version by name of the package.
    """
    found = {}
    for name in ("transmeter", "torch", "transformers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
            continue
    return found


def about_base(source: str | Path) -> dict[str, object]:
    """What is known of a base model by its own card.

    Parameters
    ----------
    source
        A folder, a GGUF file or a hub name.

    Returns
    -------
    dict
        base_model (names on the Hub), license, license_name, license_link, language, and of a folder the text of the
        card, each where there is one.

    Warns
    -----
    UserWarning
        The metadata of the card cannot be read.
    """
    local = Path(source).is_dir()
    if Path(source).is_file() or not (local or _valid(str(source))):  # a GGUF file, or a folder that is gone
        return {}
    file = Path(source) / "README.md" if local else _download(str(source))
    found: dict[str, object] = {} if local else {"base_model": [str(source)]}
    if file is None or not file.is_file():
        return found
    if local:
        found["card"] = file.read_text(encoding="utf-8", errors="replace")
    try:
        data = metadata_load(file) or {}
    except (ValueError, yaml.YAMLError):
        warnings.warn(f"the metadata of {file} cannot be read as YAML: its licence is not carried over", stacklevel=2)
        return found
    for key in ("license", "license_name", "license_link", "language"):
        value = data.get(key)
        if isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            found[key] = value
    if local:
        above = data.get("base_model")
        names = [n for n in (above if isinstance(above, list) else [above]) if isinstance(n, str) and _valid(n)]
        found |= {"base_model": names} if names else {}
    return found


def _download(name: str) -> Path | None:
    """The card of a model on the Hub, None where it has none or cannot be reached."""
    try:
        return Path(hf_hub_download(name, "README.md"))
    except Exception:  # of several libraries, by version; a card is no reason to stop
        return None


def _valid(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def check(repo: str) -> None:
    """Check that a model could be uploaded.

    Parameters
    ----------
    repo
        The name on the Hub, [USER/]REPO.

    Raises
    ------
    ValueError
        The form of the name, the network, the token or its rights do not allow it.
    """
    asked = f"--push-to-hub {repo}"
    if not _valid(repo):
        raise ValueError(f"{asked} is no name on the Hub: give NAME or USER/NAME of letters, digits, '-', '_' and '.'")
    if constants.is_offline_mode():
        raise ValueError(f"{asked} needs the network, but HF_HUB_OFFLINE is set: unset it, or leave the option out")
    if get_token() is None:
        raise ValueError(f"{asked} needs a token: run hf auth login, or set HF_TOKEN")
    try:
        user = HfApi().whoami()
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise ValueError(f"{asked}: the Hub does not know the token: run hf auth login, or set HF_TOKEN") from None
        raise ValueError(f"{asked}: {constants.ENDPOINT} does not work now ({_line(error)}): try again later") from None
    except Exception as error:  # of the HTTP library, which is another one by version
        reason = f"{constants.ENDPOINT} cannot be reached ({_line(error)})"
        raise ValueError(f"{asked}: {reason}: look at the network, or leave the option out") from None
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise ValueError(f"{asked}: the token may only read: make one that may write, and set HF_TOKEN")
    owner, mine = repo.rpartition("/")[0], [user["name"], *(org["name"] for org in user.get("orgs", []))]
    if owner and owner not in mine:
        raise ValueError(f"{asked}: '{owner}' is not yours: give one of {', '.join(mine)}")


def push(folder: Path, repo: str) -> str:
    """Upload a folder as one commit, into a private repository where there is none yet.

    Parameters
    ----------
    folder
        A model folder. Weights on the Hub that it does not have go in the same commit.
    repo
        The name on the Hub, [USER/]REPO.

    Returns
    -------
    str
        The address of the repository.

    Raises
    ------
    RuntimeError
        The Hub refuses.
    """
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        api = HfApi()
        repo = api.create_repo(repo, private=True, exist_ok=True).repo_id
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Model by transmeter", delete_patterns=STALE
        )
    except Exception as error:  # see above
        remedy = f"hf upload {repo} {folder} --private goes on"
        raise RuntimeError(f"{folder} is written, but was not uploaded ({_line(error)}): {remedy}") from None
    return str(done.repo_url)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
