"""The query parameters of a request. What is not known is refused, so that nothing asked for is silently not done."""

from collections.abc import Mapping

from kernel.errors import BadInput, NotSupported
from runtime.supervisor import selectors
from runtime.supervisor.selectors import Matcher

# A fieldManager is a signature in managedFields, which rawpod does not keep; fieldValidation is always Strict here.
_WRITE = {"dryRun", "fieldManager", "fieldValidation"}
_LIST = {"labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch"}
_DELETE = {"dryRun", "gracePeriodSeconds", "propagationPolicy"}
ALLOWED: dict[str, set[str]] = {
    "get": {"resourceVersion"},
    "list": _LIST | {"watch"},
    "watch": _LIST | {"watch", "timeoutSeconds", "allowWatchBookmarks", "sendInitialEvents"},
    "create": _WRITE,
    "update": _WRITE,
    "patch": _WRITE,
    "apply": _WRITE,
    "delete": _DELETE,
    "deletecollection": _DELETE | _LIST,
    "log": {"container", "follow", "tailLines", "timestamps", "previous", "sinceSeconds", "sinceTime", "limitBytes"},
    "other": set(),
}


class Query:
    """The parameters of one request, checked for its verb."""

    def __init__(self, verb: str, given: Mapping[str, str]) -> None:
        self._given = given
        # client-go sends a timeout for the request as a whole along with any verb
        unknown = [name for name in given if name not in ALLOWED[verb] and name != "timeout"]
        if unknown:
            known = ", ".join(sorted(ALLOWED[verb])) or "none"
            raise NotSupported(f'query parameter "{unknown[0]}" for {verb}', remedy=f"supported: {known}")
        if given.get("fieldValidation", "Strict") != "Strict":
            raise NotSupported(f'fieldValidation "{given["fieldValidation"]}"', remedy="Strict")
        if given.get("continue"):
            raise BadInput("no list is ever continued", remedy="lists are always whole")
        if given.get("resourceVersionMatch", "NotOlderThan") != "NotOlderThan":
            raise NotSupported(f'resourceVersionMatch "{given["resourceVersionMatch"]}"', remedy="NotOlderThan")
        if self.flag("sendInitialEvents"):
            raise NotSupported("sendInitialEvents", remedy="list, then watch from the list's resourceVersion")

    def flag(self, name: str) -> bool:
        """true or false; false if not given. Raises BadInput for anything else."""
        text = self._given.get(name, "false")
        if text not in ("true", "false", "1", "0"):
            raise BadInput(f'{name} "{text}"', remedy="true or false")
        return text in ("true", "1")

    def number(self, name: str) -> int | None:
        """A whole number from 0, or None. Raises BadInput."""
        text = self._given.get(name, "")
        if not text:
            return None
        if not (text.isascii() and text.isdecimal()) or len(text) > 18:
            raise BadInput(f'{name} "{text}"', remedy="a whole number, 0 or more")
        return int(text)

    def text(self, name: str) -> str | None:
        """The parameter as it is, None for none."""
        return self._given.get(name) or None

    def selector(self) -> Matcher:
        """What labelSelector and fieldSelector select."""
        return selectors.both(
            selectors.labels(self._given.get("labelSelector", "")),
            selectors.fields(self._given.get("fieldSelector", "")),
        )

    @property
    def dry_run(self) -> bool:
        """Whether nothing is to be kept. Raises BadInput for anything but All."""
        given = self._given.get("dryRun", "")
        if given not in ("", "All"):
            raise BadInput(f'dryRun "{given}"', remedy="All")
        return given == "All"

    @property
    def version(self) -> int | None:
        """The resourceVersion to watch from; None for "" and "0", which mean: any state, then what changes."""
        return self.number("resourceVersion") or None
