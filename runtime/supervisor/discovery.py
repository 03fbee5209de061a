"""The documents by which a Kubernetes client learns what there is."""

import platform
from importlib import metadata
from typing import Any

from runtime.supervisor.resources import RESOURCES, Resource

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_SUBRESOURCE_VERBS = {"log": ["get"], "status": ["get", "patch", "update"], "scale": ["get", "patch", "update"]}


def version() -> dict[str, Any]:
    """/version. rawpod's own version; major and minor are the Kubernetes API's that the objects follow."""
    try:
        own = metadata.version("rawpod")
    except metadata.PackageNotFoundError:
        own = "0"
    return {
        "major": "1",
        "minor": "31",
        "gitVersion": f"v1.31.0+rawpod-{own}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"linux/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(platform.machine(), platform.machine()) }",
    }


def api_versions() -> dict[str, Any]:
    """/api"""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def group(name: str) -> dict[str, Any]:
    """/apis/NAME, without its kind and apiVersion"""
    entry = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [entry], "preferredVersion": entry}


def groups() -> dict[str, Any]:
    """/apis"""
    names = sorted({resource.group for resource in RESOURCES if resource.group})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(name) for name in names]}


def resource_list(api_version: str) -> dict[str, Any]:
    """/api/v1, /apis/apps/v1"""
    found: list[dict[str, Any]] = []
    for resource in RESOURCES:
        if resource.api_version == api_version:
            found += _describe(resource)
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": found}


def _describe(resource: Resource) -> list[dict[str, Any]]:
    main: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": True,
        "kind": resource.kind,
        "verbs": _VERBS,
    }
    if resource.short_names:
        main["shortNames"] = list(resource.short_names)
    if resource.categories:
        main["categories"] = list(resource.categories)
    described = [main]
    for subresource in resource.subresources:
        entry: dict[str, Any] = {
            "name": f"{resource.plural}/{subresource}",
            "singularName": "",
            "namespaced": True,
            "kind": resource.kind,
            "verbs": _SUBRESOURCE_VERBS[subresource],
        }
        if subresource == "scale":
            entry |= {"kind": "Scale", "group": "autoscaling", "version": "v1"}
        described.append(entry)
    return described
