"""Behind a real proxy with TLS at a prefix: pages, sessions, websockets, cookies, another origin's page; then the same site as a build service."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import aiohttp
import pytest
from playwright.async_api import async_playwright, expect

from binder_onprem.config import load
from binder_onprem.host import engine_files
from tests.e2e import acme
from tests.e2e import front as before
from tests.e2e.conftest import CHROMIUM, FLAGS
from tests.e2e.front import HSTS, nginx, pages
from tests.e2e.kernel import Kernel, execute
from tests.e2e.stand import Stand, free_ports, ready
from tests.e2e.test_clients import INSTALLED, SCRIPTS, binderhub_client, output
from tests.real import tlsregistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from playwright.async_api import BrowserContext, ConsoleMessage, Page

    from tests.e2e.conftest import Origin

pytestmark = [pytest.mark.real, pytest.mark.browser]

PREFIX = "/services/binder/"
TOKEN = "planted-token-of-the-other-hub"


class Front:
    """A Binder at a prefix, nginx before it, and the port of another origin."""

    def __init__(self, stand: Stand, url: str, other: int) -> None:
        self.stand, self.url, self.other = stand, url, other


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    if running := os.environ.get("BINDER_ONPREM_TEST_FRONT"):  # while writing tests: one with these settings that is up already, and stays
        stand = Stand.at(Path(running))
        other = urlsplit(stand.settings["web"]["cors_allow_origin"]).port or 0
        with nginx(tmp_path_factory.mktemp("nginx"), other + 1, stand.port, PREFIX) as url:
            yield Front(stand, url, other)
        return
    ports = free_ports(12)
    stand = Stand.new()
    listen = {"port": stand.port, "base_url": PREFIX, "trusted_proxies": ["127.0.0.1"]}
    try:
        other = next(port for port in range(ports, ports + 12) if port not in range(stand.port, stand.port + 8))
        stand.configure(web={"cors_allow_origin": f"http://localhost:{other}"})
        stand.settings["listen"] = listen
        (stand.home / "config.yaml").write_text(json.dumps(stand.settings))
        stand.up()
        with nginx(tmp_path_factory.mktemp("nginx"), other + 1, stand.port, PREFIX) as url:
            yield Front(stand, url, other)
    finally:
        stand.destroy()


@asynccontextmanager
async def browser_page(complaints: list[str]) -> AsyncIterator[Page]:
    """A page that takes the test's certificate; what the console complains about is collected."""

    def console(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *FLAGS])
        context: BrowserContext = await browser.new_context(ignore_https_errors=True, locale="en-GB", viewport={"width": 1280, "height": 900})
        page = await context.new_page()
        page.on("console", console)
        yield page
        await browser.close()


async def test_from_the_form_through_the_proxy_to_a_cell(front: Front, origin: Origin) -> None:
    complaints: list[str] = []
    async with browser_page(complaints) as page:
        await page.goto(f"{front.url}?lang=fr")
        await page.goto(front.url)
        assert await page.locator("html").get_attribute("lang") == "fr"
        (cookie,) = await page.context.cookies()
        assert (cookie["name"], cookie["path"], cookie["secure"]) == ("binder-lang", PREFIX, True)
        await page.locator("#provider").select_option("git")
        origin.repository("bare")
        await page.locator("#repo").fill(origin.server.url("bare"))
        link = await page.locator("#link").input_value()
        assert link == f"{front.url}v2/{origin.spec('bare')}"
        assert f"{front.url}badge_logo.svg" in await page.locator("#markdown").input_value()
        assert await page.locator("#badge img").evaluate("image => image.complete && image.naturalWidth > 0")
        assert complaints == []
        await page.goto(f"{link}?labpath=hello.ipynb")
        await page.wait_for_url(f"{front.url}jupyter/user/**/doc/tree/hello.ipynb**", timeout=240_000)
        await page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=90_000)
        cell = await page.evaluate(
            """async () => {
              const base = location.pathname.split("/doc/")[0];
              let kernel;
              while (!kernel) {  // the page starts it
                await new Promise((resolve) => setTimeout(resolve, 300));
                [kernel] = await (await fetch(base + "/api/kernels")).json();
              }
              const socket = new WebSocket(location.origin.replace("http", "ws") + `${base}/api/kernels/${kernel.id}/channels`);
              await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = reject; });
              const header = { msg_id: "one", msg_type: "execute_request", session: "s", username: "", version: "5.3", date: "" };
              const content = { code: "print(6 * 7)", silent: false, store_history: false, user_expressions: {}, allow_stdin: false };
              socket.send(JSON.stringify({ header, parent_header: {}, metadata: {}, content, channel: "shell", buffers: [] }));
              return await new Promise((resolve) => { socket.onmessage = ({ data }) => {
                const message = JSON.parse(data);
                if (message.msg_type === "stream" && message.parent_header.msg_id === "one") resolve(message.content.text); }; });
            }"""
        )
        assert cell == "42\n"


async def test_what_the_stream_says_is_where_people_are(front: Front, origin: Origin) -> None:
    told = await output(
        "curl", "--silent", "--insecure", "--max-time", "240", "--header", "Accept: text/event-stream", f"{front.url}build/{origin.spec('bare')}"
    )
    end = json.loads(told.strip().rpartition("\n")[2].removeprefix("data: "))
    assert end["phase"] == "ready"
    assert end["binder_launch_host"] == front.url
    assert end["url"].startswith(f"{front.url}jupyter/user/")
    assert end["binder_request"] == f"v2/{origin.spec('bare')}"
    seen = await binderhub_client(
        f"{front.url}build", origin.spec("bare"), env={"PATH": "/usr/local/bin:/usr/bin:/bin", "NODE_TLS_REJECT_UNAUTHORIZED": "0"}
    )
    assert seen[-1]["phase"] == "ready"
    for path, status in (
        ("badge.svg", "200"),
        ("health", "200"),
        ("repo/o/r", "302"),
        ("nope", "404"),
        ("jupyter/user/x/lab", "424"),
        ("jupyter/hub/login", "404"),
    ):
        assert await output("curl", "--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}", front.url + path) == status
    location = await output(
        "curl", "--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{redirect_url}", f"{front.url}repo/o/r/a%20b.ipynb"
    )
    assert location == f"{front.url}v2/gh/o/r/HEAD?urlpath=%2Fa+b.ipynb"


async def test_thebe_runs_a_cell_from_another_origin(front: Front, origin: Origin) -> None:
    origin.repository("bare")
    complaints: list[str] = []
    async with pages(front.other, SCRIPTS / "course.html", thebe=INSTALLED / "thebe"), browser_page(complaints) as page:
        # Another host's name, as where courses are: from the page's own, thebe-core opens the websocket of a saved session without its token.
        site = f"http://localhost:{front.other}/course.html"
        await page.goto(f"{site}?binder={quote(front.url, safe='')}&repo={quote(origin.server.url('bare'), safe='')}")
        await expect(page.locator("#state")).to_have_text("done: alive", timeout=240_000)
        await expect(page.locator("#output")).to_contain_text("45")
        url = await page.evaluate("server.settings.baseUrl")
        assert url.startswith(f"{front.url}jupyter/user/")
        await page.reload()
        await expect(page.locator("#state")).to_have_text("done: alive", timeout=120_000)
        await expect(page.locator("#output")).to_contain_text("45")
        assert await page.evaluate("server.settings.baseUrl") == url
    assert not [text for text in complaints if "CORS" in text or "Content Security" in text]


async def test_a_page_of_a_third_origin_may_not(front: Front, origin: Origin) -> None:
    origin.repository("bare")
    complaints: list[str] = []
    async with pages(front.other + 2, SCRIPTS / "course.html", thebe=INSTALLED / "thebe") as site, browser_page(complaints) as page:
        await page.goto(f"{site}course.html?binder={quote(front.url, safe='')}&repo={quote(origin.server.url('bare'), safe='')}")
        await expect(page.locator("#state")).to_contain_text("error", timeout=60_000)
    assert any("CORS" in text for text in complaints)


async def test_what_a_client_says_of_others_before_it_is_not_believed(front: Front) -> None:
    headers = ("--header", "X-Forwarded-Host: evil.example", "--header", "X-Forwarded-Proto: http", "--header", "X-Forwarded-For: 192.0.2.1")
    told = await output("curl", "--silent", "--insecure", "--dump-header", "-", *headers, f"{front.url}openapi.json")
    assert "evil.example" not in told
    assert json.loads(told.partition("\r\n\r\n")[2])["servers"][0]["url"].startswith(front.url.rstrip("/"))
    assert f"strict-transport-security: max-age={HSTS}" in told.lower()


@pytest.mark.skipif(bool(acme.missing()), reason=acme.missing())
async def test_a_renewed_certificate_cuts_no_kernel_off(front: Front, origin: Origin, tmp_path: Path) -> None:
    http, https, first = (port := free_ports(6)), port + 1, port + 2
    with acme.pebble(tmp_path / "pebble", first, http) as server:
        directory = {"directory": server.directory, "email": "it@uni.example", "days": acme.DAYS + 1}
        here = before.front(tmp_path, https, front.stand.port, binder_host=acme.NAME, binder_http_port=http, binder_acme=directory)
        with here.serving() as process:
            redirect = ("--write-out", "%{http_code} %{redirect_url}", f"http://127.0.0.1:{http}/v2/x?y=%2F")
            assert (await output("curl", "--silent", "--output", "/dev/null", *redirect)) == f"308 https://{acme.NAME}:{https}/v2/x?y=%2F"
            first_one = await renewed(here, server, process)
            end = await ready(front.stand, origin.spec("bare"))
            url = f"https://127.0.0.1:{https}{urlsplit(end['url']).path}"
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
                async with session.post(f"{url}api/kernels", headers={"Authorization": f"token {end['token']}"}) as answer:
                    kernel = Kernel(session, url, end["token"], (await answer.json())["id"])
                async with kernel.channel() as channel:
                    assert await execute(channel, "print(6)") == "6\n"
                    assert await renewed(here, server, process) != first_one
                    assert await execute(channel, "print(7)") == "7\n"


async def renewed(here: before.Front, server: acme.Pebble, process: subprocess.Popen[bytes]) -> bytes:
    """What the timer's unit does: ask, reload. The certificate that people see then, which is by the ACME server's CA for the name."""
    asking = await asyncio.create_subprocess_exec("sh", here.write("front-renew.j2", "renew"), env={**os.environ, "SSL_CERT_FILE": str(server.ca)})
    assert await asking.wait() == 0
    assert here.certificate.stat().st_mode & 0o077 == 0
    process.send_signal(signal.SIGHUP)
    wanted = here.folder / "acme" / "certificates" / f"{acme.NAME}.crt"
    expected = ssl.PEM_cert_to_DER_cert(wanted.read_text().partition("\n\n")[0])
    trusting = ssl.create_default_context(cadata=server.root())
    async with asyncio.timeout(60):
        while shown(here.port, trusting) != expected:  # noqa: ASYNC110 - another program's doing
            await asyncio.sleep(0.05)
    return expected


def shown(port: int, trusting: ssl.SSLContext) -> bytes:
    """The certificate of a new connection; b"" for one that is not trusted."""
    try:
        with socket.create_connection(("127.0.0.1", port)) as plain, trusting.wrap_socket(plain, server_hostname=acme.NAME) as tls:
            return tls.getpeercert(binary_form=True) or b""
    except ssl.SSLError:
        return b""


async def test_as_a_build_service_for_another_hub(front: Front, origin: Origin, tmp_path: Path) -> None:
    origin.repository("bare")
    (tmp_path / "clients").write_text(f"hub-of-physics {TOKEN}\n")
    with tlsregistry.running(tmp_path / "outside") as outside:
        publish = {"registry": outside.place, "account_file": str(outside.account), "ca_file": str(outside.ca)}
        front.stand.settings |= {"web": {"api_only": True, "clients_file": str(tmp_path / "clients")}, "publish": publish}
        (front.stand.home / "config.yaml").write_text(json.dumps(front.stand.settings))
        front.stand.up()
        end = await _built(front, origin)
        reference = end["imageName"]
        assert reference.startswith(f"{outside.place}/")
        with _another_hub(front) as podman:
            podman("pull", "--quiet", f"--cert-dir={outside.ca.parent}", f"--creds={tlsregistry.ACCOUNT}", reference)
            said = podman("run", "--rm", "--network=none", reference, "sh", "-c", "id -un; ls; command -v jupyter-lab")
            assert said.split()[0] == "jovyan"
            assert "hello.ipynb" in said
            assert "jupyter-lab" in said


@contextmanager
def _another_hub(front: Front) -> Iterator[Callable[..., str]]:
    """A podman with a storage of its own, which knows nothing of ours."""
    environment = dict(engine_files.environment(load(home=front.stand.home)))
    folder = Path(tempfile.mkdtemp(prefix="bohub", dir="/var/tmp"))
    places = (f"--root={folder}/storage", f"--runroot={folder}/run", f"--tmpdir={folder}/libpod")

    def podman(*words: str) -> str:
        done = subprocess.run(["podman", *places, *words], env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    try:
        yield podman
    finally:
        podman("rmi", "--all", "--force")
        subprocess.run(["umount", "--quiet", f"{folder}/storage/overlay"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


async def _built(front: Front, origin: Origin) -> dict[str, str]:
    endpoint = f"{front.stand.url}build"
    refused = await binderhub_client(endpoint, origin.spec("bare"), buildOnly=True)
    assert [event["phase"] for event in refused] == ["failed"]
    seen = await binderhub_client(endpoint, origin.spec("bare"), buildOnly=True, apiToken=TOKEN)
    end = seen[-1]
    assert set(end) == {"phase", "message", "imageName"}, seen[-5:]
    assert end["message"] in ("Done! Found built image\n", "Done! Image built\n")
    # tljh-repo2docker asks by httpx: a token, no Accept, and takes `imageName` of `ready` or `built`, whichever comes first.
    url = f"{endpoint}/{origin.spec('bare')}?build_only=true"
    told = await output("curl", "--silent", "--max-time", "240", "--header", "Accept:", "--header", f"Authorization: Bearer {TOKEN}", url)
    named = [event["imageName"] for event in (json.loads(line[6:]) for line in told.split("\n") if line.startswith("data: ")) if "imageName" in event]
    assert named == [end["imageName"]]
    assert (await output("curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", front.stand.url)) == "404"
    return end
