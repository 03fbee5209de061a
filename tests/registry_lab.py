"""Registries on loopback (Debian's docker-registry) with each kind of door, and images in OCI layouts for them."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from backports import zstd

USER, PASSWORD = "someone", "correct horse"
# htpasswd(1) would need apache2-utils.
HTPASSWD = f"{USER}:$2b$04$8VhRgtx0LKEUFRnAbghtAuOaGI0yBwUUiEzMsj81bzZW5RXFiYEjm\n"
OCI = "application/vnd.oci.image."


def need(*programs: str) -> None:
    """Fail, rather than skip, where the set-up has not installed what these tests need."""
    missing = [program for program in programs if shutil.which(program) is None]
    assert not missing, f"not installed: {', '.join(missing)}; scripts/setup test installs it"


def run(*command: str | Path, **options: Any) -> str:
    """Run a program; what it said, if it fails, is the assertion's text."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Layer(NamedTuple):
    """A layer's files by path, and how its tar is compressed: "", "gzip" or "zstd"."""

    files: Mapping[str, bytes]
    compression: str = "gzip"

    def tar(self) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, content in self.files.items():
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(content), 0o644
                archive.addfile(member, io.BytesIO(content))
        return out.getvalue()


class Layout:
    """An OCI image layout below `path` (image-layout.md)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self._index: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Store it; its descriptor."""
        digits = hashlib.sha256(data).hexdigest()
        (self.path / "blobs/sha256" / digits).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digits}", "size": len(data)}

    def image(self, layers: Sequence[Layer], architecture: str = "amd64", **config: Any) -> dict[str, Any]:
        """Store an image's documents and layers; its manifest's descriptor."""
        descriptors, diff_ids = [], []
        for layer in layers:
            tar = layer.tar()
            diff_ids.append("sha256:" + hashlib.sha256(tar).hexdigest())
            packed = {"": bytes, "gzip": lambda data: gzip.compress(data, 1, mtime=0), "zstd": zstd.compress}
            suffix = f"+{layer.compression}" if layer.compression else ""
            descriptors.append(self.blob(packed[layer.compression](tar), f"{OCI}layer.v1.tar{suffix}"))
        document = {
            "os": "linux",
            "architecture": architecture,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}manifest.v1+json",
            "config": self.blob(json.dumps(document).encode(), f"{OCI}config.v1+json"),
            "layers": descriptors,
        }
        found = self.blob(json.dumps(manifest).encode(), f"{OCI}manifest.v1+json")
        return found | {"platform": {"os": "linux", "architecture": architecture}}

    def index(self, manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Store an index of these; its descriptor."""
        document = {"schemaVersion": 2, "mediaType": f"{OCI}index.v1+json", "manifests": list(manifests)}
        return self.blob(json.dumps(document).encode(), f"{OCI}index.v1+json")

    def tag(self, descriptor: Mapping[str, Any], name: str) -> str:
        """Make it `name` in the layout; its digest."""
        self._index.append({**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}})
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self._index}))
        return str(descriptor["digest"])


def skopeo(*arguments: str | Path) -> str:
    """skopeo(1), which accepts any signature and any certificate."""
    return run("skopeo", "--insecure-policy", *arguments)


def copy(source: str, target: str, *options: str) -> None:
    """skopeo copy, between a layout and a registry; digests stay unless another format is wanted."""
    same = [] if "--format" in options else ["--preserve-digests"]
    doors = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    skopeo("copy", "--all", "--quiet", *same, *doors, *options, source, target)


class Authority:
    """A certificate authority, and a certificate for 127.0.0.1 by it."""

    def __init__(self, directory: Path) -> None:
        self.ca, self.cert, self.key = (directory / name for name in ("ca.crt", "server.crt", "server.key"))
        ca_key, request, extensions = (directory / name for name in ("ca.key", "server.csr", "extensions"))
        new = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        run(*new, "-x509", "-days", "2", "-keyout", ca_key, "-out", self.ca, "-subj", "/CN=rawpod test authority")
        run(*new, "-keyout", self.key, "-out", request, "-subj", "/CN=registry")
        extensions.write_text("subjectAltName=IP:127.0.0.1\n")
        signed = ("openssl", "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-CAcreateserial")
        run(*signed, "-days", "2", "-extfile", extensions, "-out", self.cert)


class Registry:
    """A running docker-registry at `host`. `log` is where it writes requests."""

    def __init__(self, host: str, log: Path) -> None:
        self.host = host
        self.log = log

    def requests(self) -> list[tuple[str, str, int]]:
        """Method, path and status of all requests so far."""
        found = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("msg") == "response completed" or "http.response.status" in entry:
                    method, uri = entry["http.request.method"], entry["http.request.uri"]
                    found.append((method, uri, int(entry["http.response.status"])))
        return found


@contextlib.contextmanager
def registry(directory: Path, **sections: Any) -> Iterator[Registry]:
    """docker-registry with its data in `directory`; `sections` of its configuration are laid over ours."""
    need("docker-registry", "skopeo", "openssl")
    directory.mkdir(parents=True, exist_ok=True)
    configuration: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0", "secret": "for uploads to go on"},
    }
    for name, section in sections.items():
        configuration[name] = {**configuration.get(name, {}), **section}
    (directory / "config.yml").write_text(json.dumps(configuration))  # which is YAML as well
    log = directory / "log"
    with open(log, "w") as out:
        process = subprocess.Popen(
            ["docker-registry", "serve", directory / "config.yml"], stdout=out, stderr=out, cwd="/"
        )
    try:
        yield Registry(_listening(log, process), log)
    finally:
        process.kill()
        process.wait()


def _listening(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if "listening on " in line:
                return line.partition("listening on ")[2].split('"')[0].split(",")[0]
        time.sleep(0.01)
    raise AssertionError(f"docker-registry did not start: {log.read_text()}")


def basic_auth(directory: Path) -> dict[str, Any]:
    """The `auth` section for USER and PASSWORD."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "htpasswd").write_text(HTPASSWD)
    return {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}


class TokenServer:
    """Gives signed tokens to USER, and to anybody tokens to pull from `public/` (docs/spec/auth/token.md)."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self.asked: list[tuple[str, list[str], bool]] = []
        """Method, scopes, and whether the right credentials came along."""
        self.failures = 0
        self.seconds = 300
        """How long its tokens hold."""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                given = self.headers.get("Authorization", "")
                right = given == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                self._answer("GET", query.get("scope", []), right, bool(given))

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                scopes = form.get("scope", [""])[0].split()
                self._answer("POST", scopes, form.get("refresh_token") == ["identity"], True)

            def _answer(self, method: str, scopes: list[str], right: bool, given: bool) -> None:
                outer.asked.append((method, scopes, right))
                status, answer = 200, {"token": outer.token(scopes, right), "expires_in": outer.seconds}
                if outer.failures:
                    outer.failures -= 1
                    status, answer = 503, {}
                elif given and not right:
                    status, answer = 401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> TokenServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def auth(self) -> dict[str, Any]:
        """The registry's `auth` section."""
        return {
            "token": {
                "realm": self.url,
                "service": "test registry",
                "issuer": "test",
                "rootcertbundle": str(self._authority.cert),
            }
        }

    def token(self, scopes: Sequence[str], right: bool) -> str:
        """A JSON web token (RFC 7519) for what may be done of `scopes`."""
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = actions.split(",") if right else ["pull"] if name.startswith("public/") else []
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims: dict[str, Any] = {"iss": "test", "sub": "", "aud": "test registry", "jti": str(time.monotonic_ns())}
        claims |= {"iat": now, "nbf": now - 10, "exp": now + self.seconds, "access": access}
        pem = self._authority.cert.read_text().partition("-----BEGIN CERTIFICATE-----")[2]
        certificate = "".join(pem.partition("-----END")[0].split())
        header = {"typ": "JWT", "alg": "ES256", "x5c": [certificate]}
        signed = f"{_url64(json.dumps(header).encode())}.{_url64(json.dumps(claims).encode())}"
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self._authority.key],
            input=signed.encode(),
            capture_output=True,
            check=True,
        ).stdout
        return f"{signed}.{_url64(_raw_signature(signature))}"


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _raw_signature(der: bytes) -> bytes:
    """r and s of an ECDSA signature in 32 bytes each (RFC 7518 section 3.4), out of DER's SEQUENCE of INTEGERs."""
    length = der[3]
    r, s = der[4 : 4 + length], der[6 + length :]
    return b"".join(int.from_bytes(number, "big").to_bytes(32, "big") for number in (r, s))


def auth_file(path: Path, host: str, user: str = USER, password: str = PASSWORD, **more: str) -> Path:
    """A config.json with credentials for one registry."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: more or {"auth": auth}}}))
    return path
