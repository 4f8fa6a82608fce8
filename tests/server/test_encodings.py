"""Bodies in each of the encodings that JSON text may have, with a byte order mark and without."""

import codecs
import json
from typing import Any

import pytest

from server.wire.body import LARGE
from tests.server.live import LiveServer

COUNT = "/api/extra/tokencount"
TEXT = "aé日😀"


def counted(server: LiveServer, raw: bytes) -> Any:
    answer = server.post(COUNT, raw)
    assert answer.status == 200, answer.body
    return answer.json


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_every_encoding_says_the_same(
    server: LiveServer, mark: bytes, encoding: str, ascii_only: bool
) -> None:
    text = json.dumps({"prompt": TEXT}, ensure_ascii=ascii_only)
    told = counted(server, text.encode())
    assert told["prompt"] == TEXT
    assert counted(server, text.encode(encoding)) == told
    assert counted(server, mark + text.encode(encoding)) == told


def test_large_bodies_too(server: LiveServer) -> None:
    body = json.dumps({"prompt": TEXT, "filler": "x" * LARGE})
    assert counted(server, codecs.BOM_UTF16_LE + body.encode("utf-16-le"))["prompt"] == TEXT


def test_half_characters_of_utf16_are_question_marks(server: LiveServer) -> None:
    half = '{"prompt": "a\ud83d"}'.encode("utf-16-le", "surrogatepass")
    assert counted(server, half)["prompt"] == "a?"


@pytest.mark.parametrize(
    "raw",
    [
        codecs.BOM_UTF8,
        codecs.BOM_UTF8 + b'{"prompt": "\xff"}',
        codecs.BOM_UTF8 * 2 + b"{}",
        codecs.BOM_UTF16_LE + b'{"prompt": "x"}',
        codecs.BOM_UTF16_LE + '{"prompt": 1'.encode("utf-16-le"),
        b"{\0",
        b"\0\0\0{\0\0\0",
        '{"prompt": "é"}'.encode("latin-1"),
    ],
)
def test_what_is_no_text_is_no_json(server: LiveServer, raw: bytes) -> None:
    answer = server.post("/api/v1/generate", raw)
    assert (answer.status, answer.json["detail"]["msg"]) == (500, "Error parsing input.")
