"""Answers to a registry's challenges: basic (RFC 7617), and tokens as distribution's docs/spec/auth describe them.

A token is had from the address in the challenge, `realm`, with our credentials if there are any. It is kept for its
scope until it ends or the registry refuses it. Credentials belong to one registry: they go to it and to its realm, by
TLS if the registry speaks it, and a redirect is not followed with them.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any, NamedTuple, Protocol

from rootfs.registry.challenge import Challenge
from rootfs.registry.credentials import Credentials
from rootfs.registry.errors import RegistryError

TOKEN_MAX = 1 << 20  # bytes of a realm's answer

_DEFAULT_SECONDS = 60  # of a token that does not say: docs/spec/auth/token.md
_MARGIN = 5.0  # seconds before its end at which a token is not used any more
_TOKEN = re.compile(r"[\x21-\x7e]+")
_CLIENT = "rawpod"


class Answer(NamedTuple):
    """What a realm answered."""

    status: int
    body: bytes


class Ask(Protocol):
    """How to reach a realm: once more after failures, without following redirects."""

    async def __call__(
        self, method: str, url: str, *, query: list[tuple[str, str]], form: dict[str, str] | None, basic: str | None
    ) -> Answer: ...


class Token(NamedTuple):
    """`ends` on the monotonic clock."""

    header: str
    ends: float


class Authorizer:
    """For one registry. `secure` if it is spoken to by TLS, whoever its certificate is from."""

    def __init__(self, where: str, credentials: Credentials | None, ask: Ask) -> None:
        self._where = where
        self._credentials = credentials
        self._ask = ask
        self._tokens: dict[str, Token] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._basic: str | None = None

    def header(self, scope: str) -> str | None:
        """What to send as Authorization for `scope` without being asked; None before the first challenge."""
        token = self._tokens.get(scope)
        if token:
            return token.header if token.ends > time.monotonic() else None
        return self._basic

    async def answer(self, challenges: list[Challenge], scope: str, sent: str | None, *, secure: bool) -> str | None:
        """What to send as Authorization instead of `sent`, which was refused. None if there is nothing else to try.

        Raises RegistryError if the realm gives no token.
        """
        for challenge in challenges:
            if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                # Layers come in parallel: one of them fetches the token.
                async with self._locks.setdefault(scope, asyncio.Lock()):
                    known = self.header(scope)
                    if known is None or known == sent:
                        self._tokens[scope] = await self._token(challenge, scope, secure)
                    return self._tokens[scope].header
        for challenge in challenges:
            if challenge.scheme == "basic" and self._credentials and self._credentials.username:
                self._basic = self._credentials.basic
                return self._basic if self._basic != sent else None
        return None

    async def _token(self, challenge: Challenge, scope: str, secure: bool) -> Token:
        ours = self._credentials or Credentials()
        if ours.registry_token:
            return Token(f"Bearer {ours.registry_token}", float("inf"))
        realm = challenge.parameters["realm"]
        if not realm.startswith("https://" if secure else ("https://", "http://")):
            raise self._error(f"its token realm {realm[:200]!a} is no address for https", "protocol")
        scopes = _united(f"{challenge.parameters.get('scope', '')} {scope}")
        query = [("scope", one) for one in scopes]
        if "service" in challenge.parameters:
            query.append(("service", challenge.parameters["service"]))
        if ours.identity_token:
            form = {"grant_type": "refresh_token", "client_id": _CLIENT, "refresh_token": ours.identity_token}
            form |= {"scope": " ".join(scopes), "service": challenge.parameters.get("service", "")}
            answer = await self._ask("POST", realm, query=[], form=form, basic=None)
        elif ours.username:
            query.append(("account", ours.username))
            answer = await self._ask("GET", realm, query=query, form=None, basic=ours.basic)
        else:
            answer = await self._ask("GET", realm, query=query, form=None, basic=None)
        if answer.status != 200:
            raise self._refused(answer.status, realm)
        return self._read(answer.body, realm)

    def _read(self, body: bytes, realm: str) -> Token:
        try:
            data: Any = json.loads(body)
            token = data.get("token") or data.get("access_token")
            seconds = data.get("expires_in") or _DEFAULT_SECONDS
        except (ValueError, AttributeError, RecursionError):
            raise self._error(
                f"token realm {realm[:200]!a} answered with something else than JSON", "protocol"
            ) from None
        if not isinstance(token, str) or not _TOKEN.fullmatch(token) or not isinstance(seconds, int | float):
            raise self._error(f"token realm {realm[:200]!a} answered without a token", "protocol")
        return Token(f"Bearer {token}", time.monotonic() + max(seconds, _DEFAULT_SECONDS) - _MARGIN)

    def _refused(self, status: int, realm: str) -> RegistryError:
        who = f"for user {self._credentials.username!r}" if self._credentials and self._credentials.username else ""
        return self._error(
            " ".join(filter(None, [f"token realm {realm[:200]!a} gives no token", who])) + f": HTTP {status}",
            "unauthorized" if status in (400, 401, 403) else "protocol",
            status,
        )

    def _error(self, why: str, reason: str, status: int | None = None) -> RegistryError:
        remedy = login_remedy(self._where, self._credentials is not None) if reason == "unauthorized" else None
        return RegistryError(self._where, "authentication", why, reason=reason, status=status, remedy=remedy)


def _united(scopes: str) -> list[str]:
    """Each resource once, with all that is asked for: to push, one token does for looking as well."""
    found: dict[str, set[str]] = {}
    for scope in scopes.split():
        resource, _, actions = scope.rpartition(":")
        found.setdefault(resource, set()).update(actions.split(","))
    return [f"{resource}:{','.join(sorted(actions))}" for resource, actions in found.items()]


def login_remedy(where: str, known: bool) -> str:
    """What helps against a 401: new credentials, or credentials at all."""
    registry = where.partition("/")[0]
    if known:
        return f"the credentials for {registry} are wrong or not enough; docker login or podman login writes new ones"
    return f"no credentials for {registry} are known; docker login or podman login writes some, if the name is right"
