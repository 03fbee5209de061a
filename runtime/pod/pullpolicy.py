"""When an image is brought from its registry, and with whose credentials: Kubernetes' rules. Pure."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterable, Mapping
from typing import Any

from kernel.errors import BadInput, RawpodError
from kernel.record import Record
from rootfs.images import reference
from runtime.pod.backoff import Backoff
from runtime.pod.faults import nearest, shown
from runtime.pod.objects import Secret

POLICIES = ("Always", "IfNotPresent", "Never")
HOST = "host"
"""The image that no registry has: the machine's own /usr."""

FIRST_DELAY, LONGEST_DELAY = 10.0, 300.0

_KEYS = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}


class BadCredentials(RawpodError):
    """A Secret that imagePullSecrets names holds no credentials for registries."""


class Registries(Record):
    """Credentials as Docker's config.json has them: `auths` by registry. Their text is never shown."""

    auths: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"Registries({sorted(self.auths)})"


def backoff() -> Backoff:
    """The pauses between attempts to pull: kubelet's, 10 seconds doubled up to 300."""
    return Backoff(first=FIRST_DELAY, limit=LONGEST_DELAY, following=FIRST_DELAY)


def default_policy(image: str) -> str:
    """What an image is pulled by where nothing is said: Always for the tag latest, given or not."""
    if image == HOST:
        return "IfNotPresent"
    try:
        return "Always" if reference.parse(image).tag == "latest" else "IfNotPresent"
    except BadInput:
        return "IfNotPresent"  # refused elsewhere, with the position of what is wrong


def policy_fault(policy: str) -> tuple[str, str] | None:
    """What is wrong with an imagePullPolicy, and what would be right; "" is the default."""
    if policy in ("", *POLICIES):
        return None
    return f"unknown policy {shown(policy)}", nearest(policy, POLICIES)


def image_fault(text: str) -> str | None:
    """What is wrong with an image's name, with the position of the character."""
    if text == HOST:
        return None
    try:
        reference.parse(text)
    except BadInput as error:
        return error.message
    return None


def credentials(names: Iterable[str], secrets: Mapping[str, Secret]) -> Registries:
    """What the pod's imagePullSecrets hold; the first that has a registry counts. One that is not there is left out.

    A Secret that is missing is no reason not to try, as for kubelet: the image may be public. Raises BadCredentials
    for one that is there and holds no credentials.
    """
    auths: dict[str, Any] = {}
    for name in names:
        if secret := secrets.get(name):
            for registry, entry in _auths(name, secret).items():
                auths.setdefault(registry, entry)
    return Registries(auths)


def _auths(name: str, secret: Secret) -> dict[str, Any]:
    key = _KEYS.get(secret.type)
    if key is None:
        kinds = " or ".join(_KEYS)
        raise BadCredentials(f"imagePullSecrets: Secret {shown(name)} is of type {shown(secret.type)}, not {kinds}")
    if key not in secret.data:
        raise BadCredentials(f"imagePullSecrets: Secret {shown(name)} has no key {key}")
    try:
        content = json.loads(b64decode(secret.data[key]))
        auths = content["auths"] if key == ".dockerconfigjson" else content
    except (ValueError, KeyError, TypeError):
        auths = None
    if not isinstance(auths, dict) or not all(isinstance(entry, dict) for entry in auths.values()):
        # Nothing of what is in it: it is secret.
        raise BadCredentials(f"imagePullSecrets: {key} of Secret {shown(name)} is not a Docker configuration in JSON")
    return auths
