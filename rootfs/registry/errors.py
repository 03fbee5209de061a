"""What can go wrong between us and a registry. One class; `reason` tells a program what `str()` tells a person.

unauthorized      no or wrong credentials, or credentials that may not do it
not-found         no such repository, tag or digest
name-resolution   the registry's name has no address
unreachable       no connection, or it broke too often
tls               the certificate is not trusted, or it is not TLS that is spoken there
timeout           nothing came for too long
rate-limit        429 too often
server            the registry failed, 5xx
protocol          an answer that the distribution specification does not allow
digest            what came is not what was asked for; it was discarded
refused           any other 4xx: the registry does not want it
"""

from __future__ import annotations

from kernel.errors import RawpodError


class RegistryError(RawpodError):
    """One line: where (registry/repository), what was being done, why it failed, the remedy.

    `status` is HTTP's, `code` the registry's own, as MANIFEST_UNKNOWN; `retry_after` in seconds if the registry asked.
    """

    def __init__(
        self,
        where: str,
        doing: str,
        why: str,
        *,
        reason: str,
        status: int | None = None,
        code: str = "",
        remedy: str | None = None,
    ) -> None:
        super().__init__(f"{where}: {doing}: {why}", remedy=remedy)
        self.where = where
        self.reason = reason
        self.status = status
        self.code = code
