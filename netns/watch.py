"""Notices that something of the network was taken away, so that it is repaired at once and nobody has to poll."""

from __future__ import annotations

import errno
from types import TracebackType
from typing import Self

from netns import links, ruleset
from netns.netlink import NETLINK_NETFILTER, Netlink


class Watch:
    """Tells when a link was deleted or rules were removed in the network namespace it was made in.

    Wait for `descriptors` to become readable, in an event loop too; then `lost()` says whether `Network.repair()`
    has work to look for. What rawpod takes away itself is noticed as well, and costs one repair that finds nothing.
    """

    def __init__(self) -> None:
        self._links = Netlink(groups=(links.RTNLGRP_LINK,))
        self._rules = Netlink(NETLINK_NETFILTER, groups=(ruleset.NFNLGRP_NFTABLES,))
        for netlink in (self._links, self._rules):
            netlink.socket.setblocking(False)

    @property
    def descriptors(self) -> tuple[int, int]:
        """To be waited for."""
        return self._links.socket.fileno(), self._rules.socket.fileno()

    def lost(self) -> bool:
        """Take what was noticed so far: whether something was deleted, or so much happened that notices were lost."""
        gone = _any(self._links, frozenset((links.RTM_DELLINK,)))
        return _any(self._rules, ruleset.DELETIONS) or gone

    def close(self) -> None:
        """Stop."""
        self._links.socket.close()
        self._rules.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _any(netlink: Netlink, kinds: frozenset[int]) -> bool:
    found = False
    while True:
        try:
            found |= any(kind in kinds for kind, _ in netlink.notices())
        except BlockingIOError:
            return found
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            found = True
