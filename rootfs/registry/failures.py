"""From what a connection or a registry says to a RegistryError in words."""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl

import aiohttp
from yarl import URL

from rootfs.registry.auth import login_remedy
from rootfs.registry.config import Endpoint
from rootfs.registry.errors import RegistryError
from rootfs.registry.timing import Timing

_REASONS = {401: "unauthorized", 403: "unauthorized", 404: "not-found", 429: "rate-limit"}


def of_connection(error: BaseException, where: str, doing: str, url: URL, endpoint: Endpoint) -> RegistryError:
    """A connection that could not be made, or broke."""
    host = str(url.host_port_subcomponent)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        remedy = f"is {url.host} right, and can this machine resolve names? see /etc/resolv.conf"
        return RegistryError(
            where, doing, f"the name {url.host!r} has no address", reason="name-resolution", remedy=remedy
        )
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        why = (
            getattr(getattr(error, "certificate_error", error), "verify_message", "")
            or "it does not belong to the host"
        )
        remedy = f"put its authority into certs.d/{host}/ca.crt beside registries.toml, or allow it with --insecure"
        return RegistryError(where, doing, f"certificate of {host}: {why.lower()}", reason="tls", remedy=remedy)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        why = f"{host} does not speak TLS as it should: {_os_text(error)}"
        remedy = f'if it speaks plain HTTP: insecure = "http" for {endpoint.name!r} in registries.toml, or --insecure'
        return RegistryError(where, doing, why, reason="tls", remedy=remedy)
    if isinstance(error, TimeoutError):
        step = "no connection" if isinstance(error, aiohttp.ConnectionTimeoutError) else "no answer"
        return RegistryError(where, doing, f"{step} from {host} for too long", reason="timeout")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientProxyConnectionError):
        return RegistryError(where, doing, f"cannot connect to {host}: {_os_text(error)}", reason="unreachable")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return RegistryError(
            where, doing, f"the proxy does not connect to {host}: {error.status}", reason="unreachable"
        )
    if isinstance(error, aiohttp.InvalidURL):
        return RegistryError(where, doing, f"{host[:200]!a} can be no host's name", reason="name-resolution")
    if isinstance(error, aiohttp.ClientResponseError):
        return RegistryError(where, doing, f"{host} does not answer as HTTP has it", reason="protocol")
    return RegistryError(where, doing, f"the connection to {host} broke", reason="unreachable")


def attempts(error: BaseException, timing: Timing) -> int:
    """How often to try in all, after this."""
    if isinstance(error, aiohttp.InvalidURL | aiohttp.ClientSSLError | ssl.SSLError | ssl.CertificateError):
        return 0
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        # EAI_AGAIN is the name server's trouble, everything else its answer (getaddrinfo(3)).
        return timing.attempts if error.os_error.errno == socket.EAI_AGAIN else 0
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno == errno.ECONNREFUSED:
        return timing.refused
    return timing.attempts


def of_response(response: aiohttp.ClientResponse, body: bytes, where: str, doing: str, *, known: bool) -> RegistryError:
    """An answer that is none of those expected. `known` if we have credentials for the registry."""
    code, message = error_of(body)
    status = response.status
    reason = _REASONS.get(status, "server" if status >= 500 else "refused")
    remedy = None
    if status == 401:
        remedy = login_remedy(where, known)
    elif status == 403:
        remedy = "whoever is logged in there may not do this"
    elif status == 404:
        remedy = "is the name right, and the tag?"
    elif status == 429:
        remedy = "the registry limits how often it is asked; logging in often helps"
    why = " ".join(filter(None, [f"HTTP {status}", code]))
    return RegistryError(
        where, doing, f"{why}: {message}" if message else why, reason=reason, status=status, code=code, remedy=remedy
    )


def error_of(body: bytes) -> tuple[str, str]:
    """The code and the message of the first error in a registry's answer (distribution-spec, Error Codes)."""
    try:
        first = json.loads(body)["errors"][0]
        return _line(first.get("code")), _line(first.get("message"))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return "", ""


def _line(text: object) -> str:
    """A stranger's text, fit for one line of a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text[:200]) if isinstance(text, str) else ""


def _os_text(error: BaseException) -> str:
    inner = getattr(error, "os_error", error)
    if isinstance(inner, OSError) and inner.errno is not None and inner.errno > 0:  # getaddrinfo's are negative
        return os.strerror(inner.errno).lower()
    text = getattr(inner, "reason", None) or getattr(inner, "strerror", None) or type(inner).__name__
    return str(text).lower().replace("_", " ")
