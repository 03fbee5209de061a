"""Built images, kept by name under ~/.cache/rawpod-vm; each appears whole or not at all."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def directory() -> Path:
    """Where built images live: ${XDG_CACHE_HOME:-~/.cache}/rawpod-vm."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(base) / "rawpod-vm"
    path.mkdir(parents=True, exist_ok=True)
    return path


def entry(key: str, make: Callable[[Path], None], *, force: bool = False) -> Path:
    """The cached directory `key`, made by make(directory) if it is not there yet (or if `force`).

    Two callers that want the same image at once build it once: the second waits for the first.
    """
    final = directory() / key
    if final.is_dir() and not force:
        return final
    with _locked(key):
        if final.is_dir() and not force:
            return final
        building = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=directory()))
        try:
            make(building)
            building.chmod(0o755)
            if final.exists():
                shutil.rmtree(final)
            building.rename(final)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return final


def remember(path: Path, text: str) -> None:
    """Writes a small file by temporary file and rename."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
    Path(file.name).rename(path)


@contextmanager
def _locked(key: str) -> Iterator[None]:
    with (directory() / f".{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
