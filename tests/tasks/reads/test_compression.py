"""What a stream holds, whatever it is compressed with, and whether all of it came."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable

import pysam
import pytest
from backports import zstd

from tasks.errors import InvalidReads
from tasks.reads.compression import Text

TEXT = b"".join(b"@r%d\nACGTTGCA\n+\nIIIIHHHH\n" % n for n in range(20_000))
BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def bgzf(text: bytes) -> bytes:
    """As bgzip writes it, in members of one block each and an empty one."""
    return b"".join(_bgzf_block(text[at : at + 60_000]) for at in range(0, len(text), 60_000)) + BGZF_END


def _bgzf_block(text: bytes) -> bytes:
    member = gzip.compress(text, mtime=0)
    deflated = member[10:]
    size = 18 + len(deflated) - 1
    return member[:3] + b"\4" + member[4:10] + b"\6\0BC\2\0" + size.to_bytes(2, "little") + deflated


def text_of(body: bytes) -> tuple[bytes, str | None]:
    text = Text(io.BytesIO(body), source="reads")
    return b"".join(iter(text.read, b"")), text.damage


WRITERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip members": lambda text: gzip.compress(text[:1000]) + gzip.compress(b"") + gzip.compress(text[1000:]),
    "gzip padded": lambda text: gzip.compress(text) + bytes(700),
    "bgzf": bgzf,
    "zstd": zstd.compress,
    "zstd frames": lambda text: zstd.compress(text[:1000]) + zstd.compress(b"") + zstd.compress(text[1000:]),
}


@pytest.mark.parametrize("compress", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("text", [TEXT, b"", b"@"], ids=["text", "nothing", "one byte"])
def test_the_text_is_what_was_compressed(compress: Callable[[bytes], bytes], text: bytes) -> None:
    assert text_of(compress(text)) == (text, None)


def test_our_bgzf_is_what_htslib_takes_for_bgzf(tmp_path: object) -> None:
    path = f"{tmp_path}/reads.gz"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(bgzf(TEXT))
    with pysam.BGZFile(path) as lines:
        assert lines.read(1 << 30) == TEXT


@pytest.mark.parametrize("name", ["gzip", "bgzf", "zstd"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_a_cut_is_seen_and_what_came_before_it_is_given(name: str, part: float) -> None:
    body = WRITERS[name](TEXT)
    text, damage = text_of(body[: int(len(body) * part)])
    assert TEXT.startswith(text)
    assert damage is not None
    assert "cut off" in damage


def test_bgzf_that_is_cut_between_two_blocks_is_seen() -> None:
    text, damage = text_of(bgzf(TEXT)[: -len(BGZF_END)])
    assert text == TEXT
    assert damage == "the empty block that ends every BGZF file is missing: the file is cut off"


@pytest.mark.parametrize("name", ["gzip", "bgzf", "zstd checksum"])
def test_a_changed_byte_is_seen(name: str) -> None:
    checked = {zstd.CompressionParameter.checksum_flag: 1}
    body = bytearray(zstd.compress(TEXT, options=checked) if name.startswith("zstd") else WRITERS[name](TEXT))
    body[len(body) // 2] ^= 4
    _, damage = text_of(bytes(body))
    assert damage is not None
    assert "data is damaged" in damage or "not gzip" in damage


def test_a_text_that_grows_a_thousandfold_comes_in_small_pieces() -> None:
    text = Text(io.BytesIO(gzip.compress(bytes(50 << 20))), source="reads")
    assert max(map(len, iter(text.read, b""))) <= 1 << 20


def test_the_head_can_be_looked_at_before_it_is_read() -> None:
    text = Text(io.BytesIO(gzip.compress(TEXT)), source="reads")
    assert text.head(9) == TEXT[:9]
    assert text.head(3) == TEXT[:3]
    assert b"".join(iter(text.read, b"")) == TEXT


@pytest.mark.parametrize(
    ("magic", "name"),
    [
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"PK\3\4", "a zip"),
        (b"CRAM\3\0", "CRAM"),
        (b"\x89HDF\r", "fast5"),
    ],
)
def test_what_cannot_be_read_is_named(magic: bytes, name: str) -> None:
    with pytest.raises(InvalidReads, match=f"^reads is .*{name}"):
        text_of(magic)
