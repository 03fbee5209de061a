"""A box."""
from pathlib import Path
def make(release: str, output: Path | None) -> Path:
    raise NotImplementedError
