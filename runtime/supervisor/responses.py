"""Answers of the door: objects, lists, and Kubernetes' Status for every failure."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from kernel.errors import BadInput, Conflict, NotFound, NotSupported, RawpodError
from runtime.supervisor.registry import Invalid
from runtime.supervisor.resources import Resource
from runtime.supervisor.store import AlreadyExists, Compacted, Record, StoreBroken, StoreFailed

log = logging.getLogger("rawpod.api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

encode = msgspec.json.Encoder().encode


class UnsupportedMediaType(NotSupported):
    """A body of a type that this request does not take."""


class MethodNotAllowed(NotSupported):
    """A verb that this resource does not have."""


def reply(value: object, code: int = 200) -> web.Response:
    """A JSON body."""
    return web.Response(body=encode(value), status=code, content_type="application/json")


def reply_record(record: Record, code: int = 200) -> web.Response:
    """An object as it is stored."""
    return web.Response(body=record.body, status=code, content_type="application/json")


def reply_list(resource: Resource, records: list[Record], version: int) -> web.Response:
    """A list, put together from what is encoded already."""
    head = {"apiVersion": resource.api_version, "kind": f"{resource.kind}List", "metadata": {}}
    head["metadata"] = {"resourceVersion": str(version)}
    body = encode(head)[:-1] + b',"items":[' + b",".join(record.body for record in records) + b"]}"
    return web.Response(body=body, content_type="application/json")


_CODES: tuple[tuple[type[Exception], int, str], ...] = (
    (Invalid, 422, "Invalid"),
    (BadInput, 400, "BadRequest"),
    (AlreadyExists, 409, "AlreadyExists"),
    (Conflict, 409, "Conflict"),
    (NotFound, 404, "NotFound"),
    (Compacted, 410, "Expired"),
    (UnsupportedMediaType, 415, "UnsupportedMediaType"),
    (MethodNotAllowed, 405, "MethodNotAllowed"),
    (NotSupported, 400, "BadRequest"),
    (StoreBroken, 503, "ServiceUnavailable"),
    (StoreFailed, 507, "InternalError"),
    (RawpodError, 500, "InternalError"),
)


def status(code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """A Status object."""
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure" if code >= 400 else "Success",
        "message": message,
        "reason": reason,
        **({"details": details} if details else {}),
        "code": code,
    }


def status_of(error: Exception, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """The Status for an error."""
    code, reason = next(
        ((code, reason) for kind, code, reason in _CODES if isinstance(error, kind)), (500, "InternalError")
    )
    told = dict(details or {})
    if isinstance(error, Invalid):
        told["causes"] = [
            {"reason": "FieldValueInvalid", "message": message, "field": field} for field, message in error.causes
        ]
    return status(code, reason, str(error), told)


def success(resource: Resource, name: str, uid: str = "") -> dict[str, Any]:
    """The Status that answers a completed deletion."""
    details = {"name": name, "group": resource.group, "kind": resource.plural, **({"uid": uid} if uid else {})}
    answer = status(200, "", "", details)
    del answer["message"], answer["reason"]
    return answer


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every error of a handler into a Status."""
    try:
        return await handler(request)
    except RawpodError as error:
        details = {key: request.match_info[key] for key in ("name",) if key in request.match_info}
        answer = status_of(error, details)
    except web.HTTPMethodNotAllowed as error:
        answer = status(
            405,
            "MethodNotAllowed",
            f"{request.method} is not allowed here, only {', '.join(sorted(error.allowed_methods))}",
        )
    except web.HTTPRequestEntityTooLarge:
        answer = status(413, "RequestEntityTooLarge", f"the body is larger than {request.app._client_max_size} bytes")
    except web.HTTPNotFound:
        answer = status(404, "NotFound", f'there is nothing at "{request.path}"')
    except web.HTTPException as error:
        answer = status(error.status, error.reason.replace(" ", ""), error.reason)
    except ConnectionError:
        raise
    except Exception as error:
        log.exception("%s %s failed", request.method, request.path)
        answer = status(500, "InternalError", f"{type(error).__name__}: see the supervisor's log")
    return reply(answer, answer["code"])
