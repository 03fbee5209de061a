"""The door: the store over HTTP, with Kubernetes' paths, verbs and errors. See docs/api.md."""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from kernel.errors import BadInput
from runtime.settings import Settings
from runtime.supervisor import applying, discovery, patches, podlog, watches
from runtime.supervisor.admission import admit, admit_together
from runtime.supervisor.deletion import delete_collection, delete_one
from runtime.supervisor.query import Query
from runtime.supervisor.registry import Invalid, Registry
from runtime.supervisor.resources import RESOURCES, Object, Resource
from runtime.supervisor.responses import (
    UnsupportedMediaType,
    failures,
    reply,
    reply_list,
    reply_record,
)
from runtime.supervisor.scale import from_scale, to_scale
from runtime.supervisor.store import Record, Store, Transaction

MAX_BODY = 64 * 1024 * 1024
"""Bytes of a request; etcd takes 1.5 MB an object, and an apply may bring many."""


class Api:
    """Handlers for one store."""

    def __init__(self, store: Store, registry: Registry, settings: Settings) -> None:
        self._store, self._registry, self._settings = store, registry, settings

    def application(self) -> web.Application:
        """The routes of all resources."""
        app = web.Application(middlewares=[failures], client_max_size=MAX_BODY)
        for path in ("/healthz", "/livez", "/readyz"):
            app.router.add_get(path, self._health)
        documents: dict[str, Any] = {
            "/version": discovery.version,
            "/api": discovery.api_versions,
            "/apis": discovery.groups,
            "/api/v1": partial(discovery.resource_list, "v1"),
            "/apis/apps": lambda: {"kind": "APIGroup", "apiVersion": "v1", **discovery.group("apps")},
            "/apis/apps/v1": partial(discovery.resource_list, "apps/v1"),
        }
        for path, document in documents.items():
            app.router.add_get(path, partial(self._document, document))
        app.router.add_post("/apis/rawpod.dev/v1/apply", self._apply)
        for resource in RESOURCES:
            self._add(app, resource)
        return app

    def _add(self, app: web.Application, resource: Resource) -> None:
        everywhere, inside, one = (
            resource.path(None),
            resource.path("{namespace}"),
            resource.path("{namespace}", "{name}"),
        )
        router = app.router
        router.add_get(everywhere, partial(self._list, resource))
        router.add_get(inside, partial(self._list, resource))
        router.add_post(inside, partial(self._create, resource))
        router.add_delete(inside, partial(self._delete_collection, resource))
        router.add_get(one, partial(self._get, resource))
        router.add_put(one, partial(self._update, resource))
        router.add_patch(one, partial(self._patch, resource))
        router.add_delete(one, partial(self._delete, resource))
        if "status" in resource.subresources:
            router.add_get(f"{one}/status", partial(self._get, resource))
            router.add_put(f"{one}/status", partial(self._update_status, resource))
            router.add_patch(f"{one}/status", partial(self._patch_status, resource))
        if "scale" in resource.subresources:
            router.add_get(f"{one}/scale", partial(self._get_scale, resource))
            router.add_put(f"{one}/scale", partial(self._update_scale, resource))
            router.add_patch(f"{one}/scale", partial(self._patch_scale, resource))
        if "log" in resource.subresources:
            router.add_get(f"{one}/log", partial(self._log, resource))

    # --- reading ------------------------------------------------------------------------------------------------

    async def _health(self, request: web.Request) -> web.Response:
        Query("other", {key: value for key, value in request.query.items() if key not in ("verbose", "exclude")})
        broken = self._store.broken
        return web.Response(text="ok") if broken is None else web.Response(text=str(broken), status=503)

    async def _document(self, document: Any, request: web.Request) -> web.Response:
        Query("other", request.query)
        return reply(document())

    async def _list(self, resource: Resource, request: web.Request) -> web.StreamResponse:
        namespace = request.match_info.get("namespace")
        watching = request.query.get("watch", "false") in ("true", "1")
        query = Query("watch" if watching else "list", request.query)
        if query.flag("watch"):
            return await watches.stream(request, self._store, resource, namespace, query)
        query.number("limit")  # a list is always whole, as Kubernetes allows
        query.number("resourceVersion")
        return reply_list(resource, self._store.select(resource.kind, namespace, query.selector()), self._store.version)

    async def _get(self, resource: Resource, request: web.Request) -> web.Response:
        Query("get", request.query)
        return reply_record(self._current(resource, request))

    async def _log(self, resource: Resource, request: web.Request) -> web.StreamResponse:
        query = Query("log", request.query)
        pod = self._current(resource, request).item
        return await podlog.stream(request, self._store, self._settings, pod, query)

    def _current(self, resource: Resource, request: web.Request) -> Record:
        return self._store.get(resource.kind, request.match_info["namespace"], request.match_info["name"])

    # --- writing ------------------------------------------------------------------------------------------------

    def _transaction(self, query: Query) -> AbstractContextManager[Transaction]:
        return self._store.transaction(keep=not query.dry_run)

    async def _create(self, resource: Resource, request: web.Request) -> web.Response:
        query = Query("create", request.query)
        item = admit(await _body(request), resource, request.match_info["namespace"])
        admit_together(self._store, [item])
        with self._transaction(query) as writes:
            record = self._registry.create(writes, item)
        return reply_record(record, 201)

    async def _update(self, resource: Resource, request: web.Request) -> web.Response:
        query = Query("update", request.query)
        tree = await _body(request)
        with self._transaction(query) as writes:
            record = self._replace(writes, resource, request, tree)
        return reply_record(record)

    def _replace(self, writes: Transaction, resource: Resource, request: web.Request, tree: object) -> Record:
        item = admit(tree, resource, request.match_info["namespace"])
        _check_name(item, request)
        admit_together(self._store, [item])
        return self._registry.replace(writes, item, if_version=_version_of(tree))

    async def _patch(self, resource: Resource, request: web.Request) -> web.Response:
        query = Query("patch", request.query)
        change = await _patch_of(request)
        with self._transaction(query) as writes:
            live = self._current(resource, request).item
            changed = change(live)
            record = self._replace(writes, resource, request, changed)
        return reply_record(record)

    async def _delete(self, resource: Resource, request: web.Request) -> web.Response:
        query, options = Query("delete", request.query), await _optional_body(request)
        with self._transaction(query) as writes:
            answer = delete_one(
                writes, self._store, self._registry, resource, self._current(resource, request), query, options
            )
        return reply(answer)

    async def _delete_collection(self, resource: Resource, request: web.Request) -> web.Response:
        query, options = Query("deletecollection", request.query), await _optional_body(request)
        records = self._store.select(resource.kind, request.match_info["namespace"], query.selector())
        with self._transaction(query) as writes:
            delete_collection(writes, self._store, self._registry, resource, records, query, options)
        return reply_list(resource, records, self._store.version)

    async def _apply(self, request: web.Request) -> web.Response:
        query = Query("apply", request.query)
        body = await _body(request)
        if not (isinstance(body, dict) and body.get("kind") == "List" and isinstance(body.get("items"), list)):
            raise BadInput("apply takes a v1 List", remedy='{"apiVersion": "v1", "kind": "List", "items": […]}')
        admitted = applying.check(self._store, body["items"])
        with self._transaction(query) as writes:
            done = applying.apply_all(writes, self._registry, body["items"], admitted)
        results = [{"result": one.result, "object": msgspec.Raw(one.record.body)} for one in done]
        return reply({"apiVersion": "rawpod.dev/v1", "kind": "ApplyResult", "results": results})

    # --- subresources -------------------------------------------------------------------------------------------

    async def _update_status(self, resource: Resource, request: web.Request) -> web.Response:
        query, tree = Query("update", request.query), await _body(request)
        return self._set_status(resource, request, query, tree)

    async def _patch_status(self, resource: Resource, request: web.Request) -> web.Response:
        query, change = Query("patch", request.query), await _patch_of(request)
        return self._set_status(resource, request, query, change(self._current(resource, request).item))

    def _set_status(self, resource: Resource, request: web.Request, query: Query, tree: object) -> web.Response:
        wanted = tree.get("status") if isinstance(tree, dict) else None
        if not isinstance(wanted, dict):
            raise Invalid([("status", "required: a mapping")])
        with self._transaction(query) as writes:
            item = self._current(resource, request).item
            record = self._registry.set_status(writes, item, wanted, if_version=_version_of(tree))
        return reply_record(record)

    async def _get_scale(self, resource: Resource, request: web.Request) -> web.Response:
        Query("get", request.query)
        return reply(to_scale(self._current(resource, request).item))

    async def _update_scale(self, resource: Resource, request: web.Request) -> web.Response:
        query, tree = Query("update", request.query), await _body(request)
        return self._scale(resource, request, query, tree)

    async def _patch_scale(self, resource: Resource, request: web.Request) -> web.Response:
        query, change = Query("patch", request.query), await _patch_of(request)
        return self._scale(resource, request, query, change(to_scale(self._current(resource, request).item)))

    def _scale(self, resource: Resource, request: web.Request, query: Query, tree: object) -> web.Response:
        replicas = from_scale(tree)
        with self._transaction(query) as writes:
            item = self._current(resource, request).item
            record = self._registry.scale(writes, item, replicas, if_version=_version_of(tree))
        return reply(to_scale(record.item))


def _check_name(item: Object, request: web.Request) -> None:
    if (given := item["metadata"]["name"]) != (asked := request.match_info["name"]):
        raise Invalid([("metadata.name", f'"{given}" is not the name of the request, "{asked}"')])


def _version_of(tree: Any) -> int | None:
    """The resourceVersion an object was read at: it must still be that one. Raises Invalid for no version at all."""
    text = tree["metadata"].get("resourceVersion") if isinstance(tree.get("metadata"), dict) else None
    if not text:
        return None
    if not (isinstance(text, str) and text.isascii() and text.isdecimal()):
        raise Invalid([("metadata.resourceVersion", f'"{text}" is no version')])
    return int(text)


async def _body(request: web.Request) -> Any:
    """The request's body. Raises UnsupportedMediaType for what is not JSON by name, BadInput by content."""
    if request.content_type not in ("application/json", "application/octet-stream"):  # the latter: none was named
        raise UnsupportedMediaType(f'a body of type "{request.content_type}"', remedy="application/json")
    return _decode(await request.read())


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the body is not JSON: {error}") from None


async def _optional_body(request: web.Request) -> dict[str, Any]:
    body = await _body(request) if request.can_read_body else {}
    if not isinstance(body, dict):
        raise BadInput("the body is not a DeleteOptions object")
    return body


async def _patch_of(request: web.Request) -> Any:
    """The change that a PATCH asks for, as a function of the object."""
    body = _decode(await request.read())
    if request.content_type == "application/merge-patch+json":
        if not isinstance(body, dict):
            raise BadInput("a merge patch of an object is a mapping")
        return lambda live: patches.merge(live, body)
    if request.content_type == "application/json-patch+json":
        return lambda live: patches.json_patch(live, body)
    raise UnsupportedMediaType(
        f'a patch of type "{request.content_type}"',
        remedy="application/merge-patch+json or application/json-patch+json (kubectl patch --type=merge)",
    )
