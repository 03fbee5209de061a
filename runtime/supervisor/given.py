"""What a monitor was given of the things that change while its pod runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from runtime.pod import directory


class Given(NamedTuple):
    """`values` is values.json, None for none; labels and annotations are in the metadata of pod.json."""

    values: bytes | None
    labels: dict[str, str]
    annotations: dict[str, str]

    @classmethod
    def read(cls, where: Path) -> Given:
        """As the pod's directory has it."""
        metadata = json.loads((where / directory.POD).read_bytes())["metadata"]
        values = (where / directory.VALUES).read_bytes() if (where / directory.VALUES).exists() else None
        return cls(values, metadata.get("labels") or {}, metadata.get("annotations") or {})

    def write(self, where: Path) -> None:
        """Put it into the pod's directory, for the monitor to read again."""
        pod = json.loads((where / directory.POD).read_bytes())
        if (pod["metadata"].get("labels") or {}, pod["metadata"].get("annotations") or {}) != self[1:]:
            pod["metadata"] |= {"labels": self.labels, "annotations": self.annotations}
            directory.replace_file(where / directory.POD, json.dumps(pod).encode())
        directory.replace_file(where / directory.VALUES, self.values or b"{}")
