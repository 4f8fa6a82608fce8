"""Proxies that are believed, names that are answered to."""

import contextlib

import pytest
from starlette.types import Message, Receive, Scope, Send

from engine.errors import ConfigError
from server.middleware.hosts import HostRule, host_rule
from server.middleware.proxies import TrustedProxies
from server.networks import Networks
from server.settings import Settings, load_settings
from tests.server.live import LiveServer, serving

PROXIES = Networks(["10.0.0.0/8", "192.168.1.1", "2001:db8::/32"])


async def _receive() -> Message:
    return {"type": "http.disconnect"}


async def _send(message: Message) -> None:
    """Nothing is answered."""


def seen(peer: str, *forwarded: str, scheme: str = "") -> tuple[str, str]:
    """The address and the scheme of a request that comes from `peer` with such headers."""
    found: list[tuple[str, str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append((scope["client"][0], scope["scheme"]))

    headers = [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded]
    headers += [(b"x-forwarded-proto", scheme.encode())] if scheme else []
    scope = {"type": "http", "client": (peer, 50000), "scheme": "http", "headers": headers}
    with contextlib.suppress(StopIteration):
        TrustedProxies(app, PROXIES)(scope, _receive, _send).send(None)
    return found[0]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.1.1.1"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9, 192.168.1.1"], "203.0.113.9"),
        ("10.0.0.1", ["10.2.2.2, 10.3.3.3"], "10.2.2.2"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2a00::1]:4711"], "2a00::1"),
        ("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("2001:db8::5", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, unknown, 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["\xff"], "10.0.0.1"),
        ("203.0.113.1", ["1.1.1.1"], "203.0.113.1"),
        ("127.0.0.1", ["1.1.1.1"], "127.0.0.1"),
    ],
)
def test_the_last_address_that_is_no_proxys_is_the_clients(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert seen(peer, *forwarded)[0] == client


@pytest.mark.parametrize(
    ("peer", "sent", "scheme"),
    [
        ("10.0.0.1", "https", "https"),
        ("10.0.0.1", "http, HTTPS", "https"),
        ("10.0.0.1", "gopher", "http"),
        ("203.0.113.1", "https", "http"),
    ],
)
def test_the_scheme_is_a_proxys_to_say(peer: str, sent: str, scheme: str) -> None:
    assert seen(peer, scheme=sent)[1] == scheme


def test_clients_cannot_choose_their_address(server: LiveServer) -> None:
    assert server.post("/api/v1/generate", {"prompt": "a", "max_length": 2}).status == 200
    assert server.get("/api/extra/generate/check").json["results"][0]["text"]
    answer = server.ask("GET", "/api/extra/generate/check", headers={"X-Forwarded-For": "203.0.113.77"})
    assert answer.json["results"][0]["text"], "the caller is 127.0.0.1 all the same"


def test_a_trusted_proxy_names_its_clients(server: LiveServer, tiny_settings: Settings) -> None:
    settings = tiny_settings.model_copy(update={"trusted_proxies": ("127.0.0.0/8",)})
    with serving(server.worker, settings) as behind:
        body = {"prompt": "a", "max_length": 2, "ban_eos_token": True}
        assert behind.ask("POST", "/api/v1/generate", body, {"X-Forwarded-For": "203.0.113.9"}).status == 200
        for client, heard in (
            ("203.0.113.9", True),
            ("203.0.113.8", False),
            ("203.0.113.9, 203.0.113.8", False),
        ):
            answer = behind.ask("GET", "/api/extra/generate/check", headers={"X-Forwarded-For": client})
            assert bool(answer.json["results"][0]["text"]) is heard


@pytest.mark.parametrize(
    ("text", "networks"),
    [("10.0.0.2", ("10.0.0.2",)), ("10.0.0.2, ::1 172.16.0.0/12", ("10.0.0.2", "::1", "172.16.0.0/12"))],
)
def test_proxies_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, networks: tuple[str, ...]
) -> None:
    monkeypatch.setenv("NKAT_TRUSTED_PROXIES", text)
    assert load_settings({}).trusted_proxies == networks


def rule_of(**settings: object) -> HostRule | None:
    return host_rule(Settings(**settings))  # type: ignore[arg-type]


LOCAL = ["localhost", "LOCALHOST:5001", "127.0.0.1:5001", "127.1.2.3", "[::1]:5001", "[::1]", "localhost."]
PRIVATE = ["nkat:5001", "gpubox.local", "host.docker.internal:5001", "192.168.1.5:5001", "box.lan"]
FOREIGN = [
    "evil.example",
    "evil.example:5001",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "local.evil",
]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_server_for_this_machine_takes_no_strangers_name(host: str) -> None:
    rule = rule_of(host=host)
    assert rule is not None
    assert [name for name in (*LOCAL, *PRIVATE, *FOREIGN) if rule.admits(name)] == [*LOCAL, *PRIVATE]


def test_names_that_were_given_count_and_no_others() -> None:
    rule = rule_of(allowed_hosts="nkat.example,Other.example", host="0.0.0.0")
    assert rule is not None
    for name in ("nkat.example", "NKAT.example:443", "nkat.example.", "other.example", *LOCAL):
        assert rule.admits(name)
    for name in ("nkat:5001", "sub.nkat.example", "xnkat.example", *FOREIGN):
        assert not rule.admits(name)


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "0.0.0.0"},
        {"host": "192.168.1.5"},
        {"password": "k"},
        {"password_file": "/f"},
        {"allowed_hosts": "*"},
    ],
)
def test_where_every_name_is_taken(settings: dict[str, object]) -> None:
    assert rule_of(**settings) is None


def ask_as(server: LiveServer, host: str, method: str = "GET") -> bytes:
    with server.connect() as connection:
        head = f"{method} /api/v1/model HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        return connection.makefile("rb").read()


def test_a_foreign_name_is_refused_with_the_flag_to_set(
    server: LiveServer, locked_server: LiveServer
) -> None:
    said = ask_as(server, "evil.example:5001")
    assert said.startswith(b"HTTP/1.1 403 ")
    assert b"--allowed-hosts evil.example" in said
    assert b"access-control-allow-origin: *" in said
    assert b"koboldcpp" not in said
    assert ask_as(server, f"localhost:{server.port}").startswith(b"HTTP/1.1 200 ")
    assert ask_as(locked_server, "evil.example").startswith(b"HTTP/1.1 200 ")
    with server.connect() as connection:
        connection.sendall(b"GET /api/v1/model HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("setting", "text", "words"),
    [
        ("trusted_proxies", "proxy.example", "no address and no network"),
        ("trusted_proxies", "10.0.0.1/33", "no address and no network"),
        ("trusted_proxies", "", "no address and no network"),
        ("allowed_hosts", "http://nkat.example", "without a scheme"),
        ("allowed_hosts", "nkat.example:80", "without a scheme"),
        ("allowed_hosts", "*.example", "without a scheme"),
        ("allowed_hosts", "", "without a scheme"),
    ],
)
def test_what_is_no_proxy_and_no_name(setting: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_settings({setting: text})
    assert "\n" not in str(caught.value)
