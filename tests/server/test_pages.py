"""The pages, their files, and the two endpoints that they have for themselves."""

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from engine.errors import ConfigError, NkatError
from engine.types import Backend, ThetaStatus
from engine.worker import EngineWorker
from server.auth import KeyGuard
from server.client import EngineClient
from server.service import GenerationService
from server.webui.assets import LITE_LIMIT, STATIC, read_assets, read_lite
from server.webui.routes import page_routes
from server.webui.status import EngineControl
from server.wire import replies
from tests.server.conftest import KEY
from tests.server.live import LiveServer

PAGE, DOCS = (STATIC / "index.html").read_bytes(), (STATIC / "docs.html").read_bytes()
SCRIPTS = sorted(STATIC.glob("*.js"))
SHEETS = sorted(STATIC.glob("*.css"))
BEARER = {b"Authorization": b"Bearer " + KEY.encode()}


@dataclass
class Control:
    """An engine whose theta can be switched, and what was asked of it."""

    theta: ThetaStatus | None = field(default_factory=lambda: ThetaStatus(True, 0.97, 4))
    backend: Backend = field(default_factory=lambda: Backend("cpu", "avx2", 2))
    asked: list[dict[str, Any]] = field(default_factory=list)

    def set_theta(self, *, enabled: bool | None = None, gamma: float | None = None) -> None:
        self.asked.append({"enabled": enabled, "gamma": gamma})
        assert self.theta is not None
        if enabled is not None:
            self.theta = replace(self.theta, enabled=enabled)
        if gamma is not None:
            self.theta = replace(self.theta, gamma=gamma)


@pytest.fixture(scope="module")
def service(tiny_worker: EngineWorker) -> GenerationService:
    return GenerationService(EngineClient(tiny_worker), 4)


def client(
    service: GenerationService,
    key: str | None = None,
    *,
    engine: EngineControl | None = None,
    lite: Path | None = None,
) -> TestClient:
    """A client of the pages alone; `engine` None is one with theta."""
    app = FastAPI(
        exception_handlers={
            NkatError: replies.render_nkat_error,
            replies.HttpError: replies.render_http_error,
        }
    )
    app.include_router(page_routes(service, KeyGuard(key), engine=engine or Control(), lite=lite))
    return TestClient(app)


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("/", PAGE),
        ("/nkat", PAGE),
        ("/lcpp", PAGE),
        ("/?local=1", PAGE),
        ("/below/a/proxy/nkat/", PAGE),
        ("/api", DOCS),
        ("/docs", DOCS),
        ("/v1", DOCS),
        ("/below/a/proxy/docs", DOCS),
    ],
)
def test_where_the_pages_are(server: LiveServer, path: str, page: bytes) -> None:
    answer = server.get(path)
    assert (answer.status, answer.body) == (200, page)
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert answer.header("cache-control") == "no-store"
    policy = answer.header("content-security-policy") or ""
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("address", ["/", "/nkat", "/nkat/", "/docs", "/api/", "/v1", "/some/where/nkat"])
def test_everything_that_a_page_refers_to_is_there(server: LiveServer, address: str) -> None:
    todo = [(address, server.get(address).body.decode())]
    seen = set()
    while todo:
        place, text = todo.pop()
        # openapi.json is another module's, and the other references are links between pages.
        for reference in re.findall(r'(?:<link[^>]* href|src)="([^"]+)"| from "([^"]+)"', text):
            target = urljoin(place, "".join(reference))
            if target not in seen:
                seen.add(target)
                answer = server.get(target)
                assert answer.status == 200, target
                kind = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}[
                    Path(target).suffix
                ]
                assert (answer.header("content-type") or "").startswith(kind)
                assert answer.header("x-content-type-options") == "nosniff"
                if kind == "text/javascript":
                    todo.append((target, answer.body.decode()))
    assert len(seen) > 5


def test_nothing_comes_from_elsewhere() -> None:
    for name, asset in read_assets().items():
        text = asset.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"""https?://|["'(]//|@import""", text), name


def test_scripts_are_files_and_text_stays_text() -> None:
    for page in (PAGE, DOCS):
        assert not re.search(rb"<script(?![^>]* src=)|<style| style=| on[a-z]+=", page)
    for script in SCRIPTS:
        unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function"
        assert not re.search(unsafe, script.read_text(encoding="utf-8")), script.name


@pytest.mark.parametrize("page", ["index", "docs"])
def test_scripts_find_their_elements(page: str) -> None:
    ids = re.findall(r' id="([^"]+)"', (STATIC / f"{page}.html").read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids))
    entry = {"index": "page.js", "docs": "docs.js"}[page]
    todo, texts = [entry], {}
    while todo:
        name = todo.pop()
        texts[name] = (STATIC / name).read_text(encoding="utf-8")
        todo += [name for name in re.findall(r'from "\./([^"]+)"', texts[name]) if name not in texts]
    wanted = {found for text in texts.values() for found in re.findall(r'byId\("([^"]+)"\)', text)}
    assert wanted
    assert wanted <= set(ids)


def test_colours_are_defined_for_light_and_dark() -> None:
    light, dark = (STATIC / "style.css").read_text(encoding="utf-8").split("prefers-color-scheme: dark")
    used = {name for sheet in SHEETS for name in re.findall(r"var\((--[a-z-]+)\)", sheet.read_text())}
    assert used == set(re.findall(r"^  (--[a-z-]+):", light, re.MULTILINE))
    assert set(re.findall(r"^    (--[a-z-]+):", dark, re.MULTILINE)) == used - {"--mono"}


def test_lite_takes_the_first_place(service: GenerationService, tmp_path: Path) -> None:
    lite = tmp_path / "lite.html"
    lite.write_bytes(b"<!doctype html><script>\xff\r\n</script>")
    http = client(service, lite=lite)
    lite.write_bytes(b"another")
    first = http.get("/?local=1")
    assert first.content == b"<!doctype html><script>\xff\r\n</script>"
    assert first.headers["content-type"] == "text/html; charset=utf-8"
    assert "content-security-policy" not in first.headers, "Lite's scripts are inside its page"
    assert http.get("/nkat").content == http.get("/lcpp").content == PAGE
    assert http.get("/api/nkat/status").json()["lite"] is True
    assert client(service).get("/api/nkat/status").json()["lite"] is False


@pytest.mark.parametrize(
    ("asked", "shown"), [("/", "/?local=1"), ("/?a=%26&key=x y", "/?local=1&a=%26&key=x+y")]
)
def test_lite_talks_to_this_server(
    service: GenerationService, tmp_path: Path, asked: str, shown: str
) -> None:
    lite = tmp_path / "lite.html"
    lite.write_bytes(b"page")
    http = client(service, lite=lite)
    answer = http.get(asked, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (302, shown)
    assert http.get(shown, follow_redirects=False).content == b"page"
    worker = http.get("/sw.js")
    assert (worker.content, worker.headers["content-type"]) == (b"", "text/javascript; charset=utf-8")


def test_bad_lite_is_one_line(tmp_path: Path) -> None:
    large = tmp_path / "large.html"
    with large.open("wb") as stream:
        stream.truncate(LITE_LIMIT + 1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, words in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "directory"),
        (large, "64 MB"),
        (pipe, "regular"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            read_lite(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with large.open("r+b") as stream:
        stream.truncate(LITE_LIMIT)
    assert len(read_lite(large).body) == LITE_LIMIT


def test_status(service: GenerationService) -> None:
    status = client(service, engine=Control()).get("/api/nkat/status").json()
    info = service.info
    assert status["model"] == info.name == "tiny"
    assert (status["architecture"], status["quantization"]) == ("llama", "Q4_1")
    assert (status["parameters"], status["context_length"]) == (info.parameters, 2048)
    assert status["theta"] == {"enabled": True, "gamma": 0.97, "rank": 4}
    assert status["backend"] == {"device": "cpu", "kernels": "avx2", "threads": 2}
    assert (status["open"], status["waiting"], status["protected"]) == (0, 0, False)
    assert re.match(r"\d+\.\d+", status["version"])
    assert set(status["sampling_defaults"]) == {"temperature", "top_p", "top_k", "min_p", "rep_pen"}
    assert status["uptime"] >= status["idle_time"] >= 0


def test_status_without_theta(service: GenerationService) -> None:
    assert client(service, engine=Control(theta=None)).get("/api/nkat/status").json()["theta"] is None


def test_the_name_is_for_those_with_the_key(service: GenerationService) -> None:
    http = client(service, KEY, engine=Control())
    without = http.get("/api/nkat/status").json()
    assert (without["model"], without["protected"]) == ("protected-model", True)
    assert service.info.name not in http.get("/nkat").text
    assert http.get("/api/nkat/status", headers=BEARER).json()["model"] == service.info.name


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ({"enabled": False}, {"enabled": False, "gamma": 0.97, "rank": 4}),
        ({"gamma": 0}, {"enabled": True, "gamma": 0, "rank": 4}),
        ({"enabled": None, "gamma": 1.0, "other": []}, {"enabled": True, "gamma": 1.0, "rank": 4}),
        ({"enabled": False, "gamma": 0.5}, {"enabled": False, "gamma": 0.5, "rank": 4}),
    ],
)
def test_theta_is_changed(service: GenerationService, body: dict[str, Any], state: dict[str, Any]) -> None:
    control = Control()
    http = client(service, KEY, engine=control)
    answer = http.post("/api/nkat/theta", json=body, headers=BEARER)
    assert (answer.status_code, answer.json()) == (200, state)
    assert control.asked == [{"enabled": body.get("enabled"), "gamma": body.get("gamma")}]
    assert http.get("/api/nkat/status").json()["theta"] == state


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{}", 400),
        ('{"enabled": null}', 400),
        ("[]", 400),
        ("{", 500),
        ('{"enabled": "false"}', 422),
        ('{"enabled": 1}', 422),
        ('{"gamma": 1.01}', 422),
        ('{"gamma": -0.01}', 422),
        ('{"gamma": NaN}', 422),
        ('{"gamma": Infinity}', 422),
        ('{"gamma": true}', 422),
        ('{"gamma": "0.5"}', 422),
    ],
)
def test_bad_wishes_change_nothing(service: GenerationService, body: str, status: int) -> None:
    control = Control()
    headers = {"content-type": "application/json"}
    answer = client(service, engine=control).post("/api/nkat/theta", content=body, headers=headers)
    assert answer.status_code == status
    message = answer.json()["detail"]["msg"]
    assert message
    assert "\n" not in message
    assert control.asked == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-type": "application/json", "origin": "http://testserver"}, 200),
        ({"content-type": "application/json", "origin": "http://testserver:80"}, 200),
        ({"content-type": "application/json", "origin": "https://testserver", "host": "testserver:443"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": ""}, 415),
        ({"content-type": "application/json", "origin": "http://stranger.example"}, 403),
        ({"content-type": "application/json", "origin": "http://testserver:81"}, 403),
        ({"content-type": "application/json", "origin": "http://testserver.stranger.example"}, 403),
        ({"content-type": "application/json", "origin": "null"}, 403),
        ({"content-type": "application/json", "origin": "http://[broken"}, 403),
        ({"content-type": "application/json", "origin": ""}, 403),
    ],
)
def test_theta_is_not_changed_by_strangers_pages(
    service: GenerationService, headers: dict[str, str], status: int
) -> None:
    control = Control()
    http = client(service, engine=control)
    answer = http.post("/api/nkat/theta", content=b'{"enabled": false}', headers=headers)
    assert answer.status_code == status
    assert bool(control.asked) == (status == 200)


def test_no_theta_is_the_clients_fault(service: GenerationService) -> None:
    answer = client(service, engine=Control(theta=None)).post("/api/nkat/theta", json={"enabled": True})
    assert answer.status_code == 400
    assert "no theta" in answer.json()["detail"]["msg"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_theta_needs_the_key(service: GenerationService, headers: dict[str, str]) -> None:
    control = Control()
    answer = client(service, KEY, engine=control).post(
        "/api/nkat/theta", json={"enabled": False}, headers=headers
    )
    assert answer.status_code == 401
    assert control.asked == []
