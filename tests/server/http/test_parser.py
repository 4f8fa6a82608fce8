"""What is cheap to send and dear to parse is refused."""

import h11
import pytest

from server.http.limits import CHUNK_BYTES, CHUNKS, HEAD_BYTES, HEADERS
from server.http.parser import BoundedParser
from tests.server.http.connections import read_to_end
from tests.server.live import LiveServer

HEAD = b"POST /api/v1/generate HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def parse(*pieces: bytes) -> list[object]:
    """What the parser makes of what comes."""
    parser = BoundedParser()
    events: list[object] = []
    for piece in pieces:
        parser.receive_data(piece)
        while (event := parser.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
            events.append(event)
    return events


def padded(size: int) -> bytes:
    """A head of that many bytes."""
    start = HEAD + b"A: "
    return start + b"b" * (size - len(start) - 4) + b"\r\n\r\n"


def test_a_large_head() -> None:
    assert isinstance(parse(padded(HEAD_BYTES))[0], h11.Request)
    assert isinstance(parse(padded(HEAD_BYTES)[:-5], padded(HEAD_BYTES)[-5:])[0], h11.Request)


@pytest.mark.parametrize("size", [HEAD_BYTES + 1, HEAD_BYTES * 10])
def test_too_large_a_head_in_one_piece(size: int) -> None:
    with pytest.raises(h11.RemoteProtocolError) as caught:
        parse(padded(size))
    assert caught.value.error_status_hint == 431


def test_too_large_a_head_piece_by_piece() -> None:
    head = padded(HEAD_BYTES * 2)
    with pytest.raises(h11.RemoteProtocolError):
        parse(*(head[at : at + 1000] for at in range(0, len(head), 1000)))


def test_a_small_head_before_a_large_body() -> None:
    size = HEAD_BYTES * 4
    events = parse(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
    assert sum(len(event.data) for event in events if isinstance(event, h11.Data)) == size
    assert isinstance(events[-1], h11.EndOfMessage)


def test_headers_are_counted() -> None:
    assert parse(HEAD + b"A:b\r\n" * (HEADERS - 1) + b"\r\n")
    with pytest.raises(h11.RemoteProtocolError):
        parse(HEAD + b"A:b\r\n" * HEADERS + b"\r\n")


def test_some_chunks_may_be_small() -> None:
    events = parse(CHUNKED + b"1\r\nx\r\n" * CHUNKS + b"0\r\n\r\n")
    assert sum(isinstance(event, h11.Data) for event in events) == CHUNKS


def test_chunks_of_any_number_that_are_not_small() -> None:
    chunk = b"%x\r\n" % CHUNK_BYTES + b"x" * CHUNK_BYTES + b"\r\n"
    assert isinstance(parse(CHUNKED + chunk * CHUNKS * 3 + b"0\r\n\r\n")[-1], h11.EndOfMessage)


def test_many_small_chunks() -> None:
    with pytest.raises(h11.RemoteProtocolError):
        parse(CHUNKED + b"1\r\nx\r\n" * CHUNKS * 2)


@pytest.mark.parametrize(
    "sent", [padded(HEAD_BYTES * 4), CHUNKED + b"1\r\n \r\n" * CHUNKS * 2, b"no HTTP\r\n\r\n"]
)
def test_the_server_refuses_them(server: LiveServer, sent: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(sent)
        assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")
    assert server.get("/ping").status == 200


def test_nonsense_after_the_answer_has_begun(
    locked_server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no answer any more, and none is tried."""
    with locked_server.connect() as connection:
        connection.sendall(CHUNKED)
        heard = b""
        while b"Unauthorized" not in heard:
            heard += connection.recv(1 << 16)
        connection.sendall(b"no chunk\r\n")
        assert b"HTTP/1.1" not in read_to_end(connection)
    assert locked_server.get("/ping").status == 200
    assert "Traceback" not in caplog.text
    assert "data_received" not in caplog.text


def test_an_upgrade_is_passed_over(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    answer = server.get("/ping", Connection="Upgrade, close", Upgrade="websocket")
    assert answer.status == 200
    assert "pgrade" not in caplog.text
