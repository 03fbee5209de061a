"""TLS contexts for registries: the system's authorities, and what a directory per host adds, as Docker's certs.d does.

CERTIFICATES/HOST[:PORT]/*.crt     authorities that are trusted for this host as well
CERTIFICATES/HOST[:PORT]/*.cert    certificates that we show, each with its key in a *.key of the same name
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from kernel.errors import BadInput


class Contexts:
    """A context for each host, made once."""

    def __init__(self, certificates: Path) -> None:
        self.certificates = certificates
        self._made: dict[tuple[str, bool], ssl.SSLContext] = {}

    def context(self, host: str, *, verify: bool) -> ssl.SSLContext:
        """For `host`, written HOST or HOST:PORT. Raises BadInput for certificates that cannot be used."""
        key = (host, verify)
        if key not in self._made:
            self._made[key] = self._make(host, verify)
        return self._made[key]

    def _make(self, host: str, verify: bool) -> ssl.SSLContext:
        context = ssl.create_default_context()
        # Python 3.13 asks more of an authority's form than Docker does: for registries that have worked with that.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        directory = self.certificates / host
        try:
            # The host comes from the network where a registry redirects: it names a directory and nothing above it.
            names = sorted(os.listdir(directory)) if host not in ("", ".", "..") and "/" not in host else []
        except (FileNotFoundError, NotADirectoryError):
            names = []
        except OSError as error:
            raise BadInput(f"cannot read {str(directory)!r}: {(error.strerror or '').lower()}") from None
        for name in names:
            path = directory / name
            try:
                if path.suffix == ".crt":
                    context.load_verify_locations(path)
                elif path.suffix == ".cert":
                    if path.with_suffix(".key").name not in names:
                        raise BadInput(f"{str(path)!r} has no key", remedy=f"put it into {path.with_suffix('.key')}")
                    context.load_cert_chain(path, path.with_suffix(".key"), password=_no_password)
            except (ssl.SSLError, OSError, ValueError) as error:
                raise BadInput(f"{str(path)!r} cannot be used: {_why(error)}") from None
        return context


def _no_password() -> str:
    # Without this OpenSSL asks on the terminal.
    raise ValueError("the key is encrypted")


def _why(error: Exception) -> str:
    text = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(text).lower().replace("_", " ")
