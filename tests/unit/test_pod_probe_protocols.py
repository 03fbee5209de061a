"""HTTP and gRPC as probes speak them."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.pod import probe_grpc
from runtime.pod.probe_grpc import Broken, Call, frame, huffman, statuses
from runtime.pod.probe_http import redirected, request
from runtime.pod.probe_response import MAX_BODY, MAX_HEADER, Malformed, Response
from runtime.pod.probes import FAILURE, SUCCESS, HttpGet

GET = HttpGet("", 80, "/well", tls=False)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def respond(data: bytes, size: int = 1 << 20) -> Response:
    response = Response()
    for at in range(0, len(data), size):
        if not response.done:
            response.feed(data[at : at + size])
    return response


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", 200, b"ok"),
        (b"HTTP/1.0 404\n\nContent-Length: 1\n\n", 404, None),
        (b"HTTP/1.1 204 None\r\nContent-Length: 9\r\n\r\n", 204, b""),
        (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 500, b""),
        (
            CHUNKED + b"2;x=y\r\nab\r\nA\r\n0123456789\r\n0\r\n",
            200,
            b"ab0123456789",
        ),
    ],
)
def test_responses_are_understood_in_whatever_pieces_they_come(
    data: bytes, status: int, body: bytes | None, size: int
) -> None:
    response = respond(data, size)
    assert response.status == status
    assert response.done is (body is not None)
    if body is None:
        response.end()
    else:
        assert response.body.startswith(body)
    assert response.done


def test_a_long_body_is_read_to_its_limit_only() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
    response = respond(head + bytes(MAX_BODY - 1))
    assert not response.done
    response.feed(bytes(5000))
    assert response.done
    assert len(response.body) == MAX_BODY


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        CHUNKED + b"xyz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_HEADER,
    ],
)
def test_what_is_no_http_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        respond(data)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_whatever_a_server_sends_is_a_response_or_malformed(data: bytes, size: int) -> None:
    for start in (b"", b"HTTP/1.1 200 OK\r\n", CHUNKED):
        try:
            assert respond(start + data, size).status in range(1000)
        except Malformed:
            pass


def test_headers_of_the_manifest_stand_before_those_of_kubelet() -> None:
    plain = request(GET, "10.0.0.1:80").decode().split("\r\n")
    assert plain == [
        "GET /well HTTP/1.1",
        "Host: 10.0.0.1:80",
        "User-Agent: kube-probe/1.34",
        "Accept: */*",
        "Connection: close",
        "",
        "",
    ]
    headers = (("Host", "web"), ("user-agent", ""), ("Accept", "text/html"), ("X", "1"), ("X", "2"))
    given = request(GET.replace(headers=headers), "10.0.0.1:80").decode().split("\r\n")
    assert given[1:] == ["Host: web", "Connection: close", "Accept: text/html", "X: 1", "X: 2", "", ""]


def test_redirects_lead_to_ports_schemes_and_paths_and_keep_a_host_header_where_they_are_relative() -> None:
    first = GET.replace(headers=(("Host", "web"), ("X", "1")))
    url = "http://10.0.0.1:80/a/well"
    assert redirected(first, url, "../b c?d") == first.replace(host="10.0.0.1", target="/b%20c?d")
    secure = HttpGet("10.0.0.1", 443, "/", tls=True, headers=(("X", "1"),))
    assert redirected(first, url, "https://10.0.0.1") == secure
    assert redirected(first, url, "http://elsewhere:81/x").host == "elsewhere"
    for wrong in ("ftp://10.0.0.1/", "http://10.0.0.1:99999/", "http://[/"):
        with pytest.raises(ValueError):
            redirected(first, url, wrong)


# --- gRPC -------------------------------------------------------------------------------------------------------

_OK_HEADERS = b"\x20\x88\x5f\x10application/grpc"  # no table; :status 200 by its index; content-type by its name's


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + name + value


def _plain(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _coded(text: str) -> bytes:
    return bytes([0x80 | len(huffman(text))]) + huffman(text)


def _answer(message: bytes, trailers: bytes) -> bytes:
    body = b"\0" + pack(">I", len(message)) + message
    settings = frame(4, 0, 0, b"")
    return settings + frame(1, 4, 1, _OK_HEADERS) + frame(0, 0, 1, body) + frame(1, 5, 1, trailers)


def _told(data: bytes, size: int = 1 << 20) -> tuple[str, str]:
    call = Call()
    for at in range(0, len(data), size):
        call.feed(data[at : at + size])
    assert call.done
    return call.verdict()


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    "status", [_literal(_plain(b"grpc-status"), _plain(b"0")), _literal(_coded("grpc-status"), _coded("0"))]
)
def test_a_service_that_serves_is_well(status: bytes, size: int) -> None:
    assert _told(_answer(b"\x08\x01", status), size) == (SUCCESS, "")
    assert _told(_answer(b"\x08\x02", status), size) == (FAILURE, 'service unhealthy (responded with "NOT_SERVING")')
    assert _told(_answer(b"", status), size) == (FAILURE, 'service unhealthy (responded with "UNKNOWN")')


def test_a_server_that_knows_no_health_and_a_service_it_does_not_know_are_failures() -> None:
    for number, word in ((b"12", "does not implement the grpc health protocol"), (b"5", "NOT_FOUND")):
        trailers_only = _OK_HEADERS + _literal(_plain(b"grpc-status"), _plain(number))
        result, message = _told(frame(4, 0, 0, b"") + frame(1, 5, 1, trailers_only))
        assert result == FAILURE
        assert word in message


def test_settings_and_pings_are_answered_and_continued_headers_put_together() -> None:
    call = Call()
    call.feed(frame(4, 0, 0, b"") + frame(4, 1, 0, b"") + frame(6, 0, 0, b"12345678"))
    assert call.replies == frame(4, 1, 0, b"") + frame(6, 1, 0, b"12345678")
    call.feed(frame(1, 0x1, 1, _OK_HEADERS) + frame(9, 4, 1, _literal(_plain(b"grpc-status"), _plain(b"7"))))
    assert call.verdict() == (FAILURE, "error: health rpc probe failed: PERMISSION_DENIED")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        frame(7, 0, 0, bytes(8)),
        frame(3, 0, 1, bytes(4)),
        frame(0, 8, 1, b"\xff"),
        frame(1, 5, 1, b"\x00\x7f"),
        frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
    ],
)
def test_what_is_no_answer_is_broken(data: bytes) -> None:
    with pytest.raises(Broken):
        Call().feed(data)


@given(st.binary(max_size=200))
def test_whatever_a_server_sends_is_an_answer_or_broken(data: bytes) -> None:
    for start in (b"", frame(1, 4, 1, _OK_HEADERS)):
        call = Call()
        try:
            call.feed(start + frame(1, 5, 1, data[:100]) + data[100:])
            call.verdict()
        except Broken:
            pass


def test_huffman_codes_are_those_of_the_specification() -> None:
    """RFC 7541, appendix C.4.1 has others; "302" is in C.6.1, and gRPC's own name is as grpc-go writes it."""
    assert huffman("302") == bytes.fromhex("6402")
    assert huffman("grpc-status") == bytes.fromhex("9acac8b21234da8f")
    assert statuses(b"\x48\x03302") == ("302", None)


def test_a_request_names_the_service() -> None:
    sent = probe_grpc.request("10.0.0.1:50", "db", 5)
    assert sent.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert sent.endswith(frame(0, 1, 1, b"\0\0\0\0\x04\x0a\x02db"))
    assert b"/grpc.health.v1.Health/Check" in sent
    assert probe_grpc.request("10.0.0.1:50", "", 5).endswith(frame(0, 1, 1, bytes(5)))
