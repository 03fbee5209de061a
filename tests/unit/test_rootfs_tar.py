"""Tar headers, well-formed and not."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootfs.layers.tar import HeaderLimits, Member, members
from rootfs.layers.tar_header import TarError, byte_sum
from tests.rootfs_lab import Archive, BytesSource, header, padded, record

LIMITS = HeaderLimits(member_bytes=1 << 20, extended_bytes=1 << 16, segments=64)


def read(data: bytes, limits: HeaderLimits = LIMITS) -> list[tuple[Member, bytes]]:
    source = BytesSource(data)
    return [(member, source.read(member.stored)) for member in members(source, limits)]


def only(data: bytes) -> Member:
    [(member, _)] = read(data)
    return member


def refusal(data: bytes, limits: HeaderLimits = LIMITS) -> TarError:
    with pytest.raises(TarError) as caught:
        read(data, limits)
    return caught.value


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_the_standard_library_writes_is_read_back(form: int) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        names = ["a", "d/" + "n" * 90 + "/" + "m" * 99, "ümläut"]
        if form != tarfile.USTAR_FORMAT:
            names += ["x" * 200 + "/" + "y" * 250]
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid, info.mode, info.mtime = 3, 7, 8, 0o4751, 1234567890
            archive.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "t" * (99 if form == tarfile.USTAR_FORMAT else 300)
        archive.addfile(link)
    found = read(file.getvalue())
    assert [member.name for member, _ in found] == [*names, "link"]
    assert found[-1][0].link == link.linkname
    for member, data in found[:-1]:
        assert data == b"abc"
        assert (member.uid, member.gid, member.mode, member.mtime_ns) == (7, 8, 0o4751, 1234567890 * 10**9)


def test_fractions_of_seconds_and_times_before_1970() -> None:
    archive = Archive().extended(b"x", record("mtime", "-1.25")).add("a")
    assert only(archive.bytes()).mtime_ns == -1_250_000_000


def test_large_numbers_in_base_256() -> None:
    block = header("a", uid=b"\x80" + (1 << 21).to_bytes(7, "big"))
    assert only(block + bytes(1024)).uid == 1 << 21


def test_attributes() -> None:
    archive = Archive().extended(b"x", record("SCHILY.xattr.security.capability", b"\0\1\n=")).add("a")
    assert only(archive.bytes()).xattrs == {"security.capability": b"\0\1\n="}


def test_a_global_header_holds_for_all_that_follow() -> None:
    archive = Archive().extended(b"g", record("uid", "5")).add("a").add("b")
    assert [member.uid for member, _ in read(archive.bytes())] == [5, 5]


@pytest.mark.parametrize("key", ["path", "linkpath", "size"])
def test_a_global_header_cannot_name_every_member(key: str) -> None:
    assert repr(key) in refusal(Archive().extended(b"g", record(key, "1")).add("a").bytes()).reason


@pytest.mark.parametrize("size", [b"\xff" * 11 + b"\0", b"\xff" * 12])
def test_a_negative_size_is_refused(size: bytes) -> None:
    """CVE-2025-8194: Python's tarfile went back in the file and read the same header for ever."""
    assert "size of -" in refusal(header("a", size=size) + bytes(1024)).reason


@pytest.mark.parametrize(
    "records", [b"0 a=b\n", b"1 a=b\n", b"a=b\n", b"99 a=b\n", b"6 a=bX", b"5 ab\n\n", b"-6 a=b\n"]
)
def test_malformed_pax_records_end_at_once(records: bytes) -> None:
    """CVE-2019-20907: a record of length 0 held Python's tarfile in a loop."""
    assert "pax record" in refusal(Archive().extended(b"x", records).add("a").bytes()).reason


@pytest.mark.parametrize("key", ["uid", "gid", "size"])
def test_negative_numbers_in_pax_records_are_refused(key: str) -> None:
    assert "is not a number" in refusal(Archive().extended(b"x", record(key, "-1")).add("a").bytes()).reason


@pytest.mark.parametrize("value", ["4294967295", "4294967296"])
def test_ids_that_chown_would_not_set_are_refused(value: str) -> None:
    refused = refusal(Archive().extended(b"x", record("uid", value)).add("a").bytes())
    assert value in refused.reason
    assert refused.member == "a"


def test_huge_claims_are_refused_before_anything_is_read() -> None:
    assert "over the limit" in refusal(Archive().extended(b"x", record("size", "1" + "0" * 18)).add("a").bytes()).reason
    assert "extended header of" in refusal(header("x", b"x", 8 << 20) + bytes(1024)).reason
    assert "extended header of" in refusal(header("x", b"L", 8 << 20) + bytes(1024)).reason


def test_headers_that_only_extend_one_another_are_refused() -> None:
    archive = Archive()
    for _ in range(40):
        archive.extended(b"x", record("comment", "c"))
    assert "extended headers" in refusal(archive.add("a").bytes()).reason


def test_global_headers_cannot_pile_up() -> None:
    archive = Archive()
    for number in range(4):
        archive.extended(b"g", record(f"key{number}", "v" * 30_000))
    assert "global headers" in refusal(archive.add("a").bytes()).reason


def test_zero_bytes_in_names_are_refused() -> None:
    assert "zero byte" in refusal(Archive().extended(b"x", record("path", b"a\0b")).add("a").bytes()).reason
    assert "4096" in refusal(Archive().extended(b"x", record("path", "a/" * 3000)).add("a").bytes()).reason


def test_sparse_files_in_gnus_three_forms() -> None:
    data = b"x" * 512
    one = Archive().extended(
        b"x",
        record("GNU.sparse.major", "1")
        + record("GNU.sparse.minor", "0")
        + record("GNU.sparse.name", "s")
        + record("GNU.sparse.realsize", "4096"),
    )
    one.raw(header("GNUSparseFile.0/s", b"0", 1024) + padded(b"1\n1024\n512\n") + data)
    point_one = Archive().extended(b"x", record("GNU.sparse.size", "4096") + record("GNU.sparse.map", "1024,512"))
    point_one.raw(header("s", b"0", 512) + data)
    old = bytearray(header("s", b"S", 512, magic=b"ustar  \0"))
    old[386:398], old[398:410] = b"%011o\0" % 1024, b"%011o\0" % 512
    old[483:495] = b"%011o\0" % 4096
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    for archive in (one.bytes(), point_one.bytes(), bytes(old) + data + bytes(1024)):
        [(member, contents)] = read(archive)
        assert (member.name, member.size, member.segments) == ("s", 4096, ((1024, 512),))
        assert contents == data


@pytest.mark.parametrize(
    "numbers", ["0,1024", "512,512,0,0", "4000,512", "0", "0,-512", "1" * 30 + ",512", ",".join(["0"] * 4000)]
)
def test_sparse_maps_that_do_not_fit_are_refused(numbers: str) -> None:
    archive = Archive().extended(b"x", record("GNU.sparse.size", "4096") + record("GNU.sparse.map", numbers))
    archive.raw(header("s", b"0", 512) + bytes(512))
    assert refusal(archive.bytes()).member == "s"


def test_a_sparse_bomb_is_over_the_limit_of_one_file() -> None:
    archive = Archive().extended(b"x", record("GNU.sparse.size", str(1 << 50)) + record("GNU.sparse.map", "0,512"))
    assert "over the limit" in refusal(archive.raw(header("s", b"0", 512) + bytes(512)).bytes()).reason


@pytest.mark.parametrize("kind", [b"D", b"M", b"X", b"Z"])
def test_types_that_are_not_known_are_refused(kind: bytes) -> None:
    assert "is not supported" in refusal(header("a", kind) + bytes(1024)).reason


def test_damage_and_truncation_are_located() -> None:
    good = Archive().add("a", b"contents").add("b").bytes()
    assert refusal(good[:700]).reason == "the archive is truncated"
    assert refusal(good[:1024]).offset == 1024
    damaged = bytearray(good)
    damaged[1024 + 10] ^= 1
    assert (refusal(bytes(damaged)).offset, "checksum" in refusal(bytes(damaged)).reason) == (1024, True)


@given(st.binary(min_size=0, max_size=2048), st.integers(0, 1500))
def test_no_bytes_make_it_do_anything_but_read_or_refuse(noise: bytes, where: int) -> None:
    data = bytearray(Archive().add("a", b"contents").extended(b"x", record("path", "p")).add("b").bytes())
    data[where : where + len(noise)] = noise
    try:
        read(bytes(data))
    except TarError as error:
        assert error.offset <= len(data)


def test_stars_prefix_ends_where_its_times_begin() -> None:
    prefix, times = b"p" * 131, b"00000000001 00000000002 "
    block = bytearray(header("name"))
    block[345:500] = prefix + times
    block[508:512] = b"tar\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert only(bytes(block) + bytes(1024)).name == prefix.decode() + "/name"


def test_checksums_of_signed_bytes_are_taken() -> None:
    block = bytearray(header("ü"))
    high = sum(byte >= 0x80 for byte in block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) - 256 * high)
    assert only(bytes(block) + bytes(1024)).name == "ü"


@given(st.binary(min_size=512, max_size=512))
def test_the_checksum_is_the_sum_of_the_bytes(block: bytes) -> None:
    assert byte_sum(block) == sum(block[:148]) + 8 * 32 + sum(block[156:])


@given(
    st.sampled_from(["a", "d/", "./a", "ü", "n" * 100, "a/" * 60 + "b"]),
    st.sampled_from([b"0", b"1", b"2", b"5", b"\0"]),
    st.fixed_dictionaries(
        {},
        optional={
            "gid": st.sampled_from([b"1_0".ljust(8), b"0o7".ljust(8), b"\0" * 8]),
            "uid": st.sampled_from([b"0000007\0", b"\x80".ljust(8), b"\xff" * 8, b"   12 \0\0", b"8".ljust(8)]),
            "size": st.sampled_from([b"00000000005\0", b"77777777777\0", b"+0000000000\0", b"           \0"]),
            "mtime": st.sampled_from([b"14000000000\0", b"\xff" * 12, b"\x80" + b"\x7f" * 11]),
            "magic": st.sampled_from([b"ustar\x0000", b"ustar  \0", b"\0" * 8]),
        },
    ),
)  # fmt: skip
def test_the_short_way_says_what_the_long_one_says(name: str, kind: bytes, patches: dict[str, bytes]) -> None:
    """Ordinary headers are decoded apart. A global header that changes nothing sends them the long way."""
    block = header(name, kind, patches.pop("size", 5), **patches) + b"12345".ljust(512, b"\0") * 2 + bytes(1024)
    archives = block, Archive().extended(b"g", record("comment", "x")).bytes()[:-1024] + block
    answers = []
    for archive in archives:
        try:
            member, contents = read(archive)[0]
            answers.append((member._replace(offset=0), contents))
        except TarError as error:
            answers.append(error.reason)
    assert answers[0] == answers[1]
