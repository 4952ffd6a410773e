"""What a proxy says of a request counts only where one was announced; the site behind a real nginx, below a path."""

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest
from site_tools import FORM, ROOT, ask, form, png, quick_client, running_site, upload

from cxr.site.arguments import parse_args
from cxr.site.errors import ERRORS, MAX_REQUEST_BYTES

FORWARDED = {
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "cxr.hospital.example",
    "X-Forwarded-Prefix": "/cxr",
}
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def links_of(page):
    return {link for link in re.findall(r'(?:href|src|action)="([^"#][^"]*)"', page) if not link.startswith("data:")}


def client_in_log(caplog):
    lines = [json.loads(one.getMessage()) for one in caplog.records if one.name == "cxr.requests"]
    return lines[-1].get("client")


@pytest.mark.fault("H80")
def test_without_the_flag_forwarded_headers_are_ignored(caplog):
    caplog.set_level("INFO", logger="cxr.requests")
    client = quick_client()
    page = client.get("/", headers=FORWARDED)
    assert page.status_code == 200
    assert all(not link.startswith("/cxr") for link in links_of(page.text))
    assert client_in_log(caplog) == "127.0.0.1"
    refused = upload(client, png(), headers=FORWARDED | {"Origin": "https://cxr.hospital.example"})
    assert refused.status_code == 403
    assert "203.0.113.7" not in caplog.text


@pytest.mark.fault("H80")
@pytest.mark.parametrize("path", ["/", "/cxr/"], ids=["stripped", "kept"])
def test_with_the_flag_names_address_and_path_are_the_proxys(caplog, path):
    caplog.set_level("INFO", logger="cxr.requests")
    client = quick_client(num_proxies=1, trusted_hosts=["cxr.hospital.example"])
    page = client.get(path, headers=FORWARDED)
    assert page.status_code == 200
    assert len(links_of(page.text)) > 5
    assert all(link.startswith("/cxr/") for link in links_of(page.text))
    assert client_in_log(caplog) == "203.0.113.7"
    headers = FORWARDED | {"Origin": "https://cxr.hospital.example"}
    assert upload(client, png(), path=f"{path}predict", headers=headers).status_code == 200
    assert (
        upload(client, png(), path=f"{path}predict", headers=headers | {"Origin": "http://a.example"}).status_code
        == 403
    )
    assert client.get(path, headers=FORWARDED | {"X-Forwarded-Host": "evil.example"}).status_code == 400


@pytest.mark.fault("H80")
@pytest.mark.parametrize(
    ("num_proxies", "value", "expected"),
    [
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "9.9.9.9, 203.0.113.7", "203.0.113.7"),  # the first is what the visitor wrote
        (2, "9.9.9.9, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        (2, "203.0.113.7", "127.0.0.1"),  # one of the two was passed by
        (1, "2001:DB8::1", "2001:db8::1"),
        (1, "<script>", None),
        (1, 'MUSTERMANN", "client": "1.1.1.1', None),
        (1, ",", "127.0.0.1"),
    ],
)
def test_the_address_is_the_one_that_the_outermost_proxy_saw(caplog, num_proxies, value, expected):
    caplog.set_level("INFO", logger="cxr.requests")
    client = quick_client(num_proxies=num_proxies)
    assert client.get("/healthz", headers={"X-Forwarded-For": value}).status_code == 200
    assert client_in_log(caplog) == expected


@pytest.mark.fault("H80")
@pytest.mark.parametrize(
    "prefix", ["//evil.example", "http://evil.example", "/a b", '/"><b>', "cxr", "/%2f", "/", "/../x"]
)
def test_a_path_that_is_none_does_not_reach_the_links(prefix):
    client = quick_client(num_proxies=1)
    page = client.get("/", headers={"X-Forwarded-Prefix": prefix, "X-Forwarded-Proto": "javascript"})
    assert page.status_code == 200
    assert all(re.match(r"/([a-z]|$)", link) for link in links_of(page.text)), links_of(page.text)
    assert "evil" not in page.text


@pytest.mark.parametrize("value", ["0", "-1", "10", "one", "1.5", "²"])
def test_a_number_of_proxies_that_is_none_is_refused_in_one_line(capsys, value):
    with pytest.raises(SystemExit, match="2"):
        parse_args([f"--behind-proxy={value}"])
    assert f"1 to 9, received '{value}'" in capsys.readouterr().err


def test_the_flag_counts_one_proxy_unless_told_more():
    assert [parse_args(one).behind_proxy for one in ([], ["--behind-proxy"], ["--behind-proxy", "2"])] == [0, 1, 2]


@contextmanager
def running_nginx(folder, site_port, location):
    """Run nginx with one location, paths below a folder, as whoever runs the tests; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    user = f"user {pwd.getpwuid(0).pw_name};" if os.getuid() == 0 else ""
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    location = location.replace("127.0.0.1:5000", f"127.0.0.1:{site_port}")
    (folder / "nginx.conf").write_text(
        f"daemon off; {user} worker_processes 1; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {temporary}\nserver {{ listen 127.0.0.1:{port};\n{location}\n}} }}\n"
    )
    command = [NGINX, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(100):
            if process.poll() is not None:
                raise RuntimeError(process.stderr.read())
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.communicate()


def documented_location():
    page = (ROOT / "docs" / "site.md").read_text(encoding="utf-8")
    return re.search(r"```nginx\n(.*?)```", page, re.DOTALL)[1]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    """A site below /cxr behind nginx as documented: its process, its port, and the proxy's."""
    if NGINX is None:
        pytest.skip("no nginx is installed; apt-get install nginx-light")
    arguments = ("--url-prefix", "/cxr", "--behind-proxy", "1", "--trusted-host", "cxr.hospital.example")
    with (
        running_site(*arguments) as running,
        running_nginx(tmp_path_factory.mktemp("nginx"), running.port, documented_location()) as port,
    ):
        running.proxy_port = port
        yield running


@pytest.mark.fault("H81")
def test_behind_nginx_pages_and_links_work_below_the_path(proxied):
    assert ask(proxied.proxy_port, path="/cxr")[0] == 301
    status, _, body = ask(proxied.proxy_port, path="/cxr/")
    assert status == 200
    links = links_of(body.decode())
    assert len(links) > 5
    for link in links:
        assert ask(proxied.proxy_port, path=link)[0] in (200, 405), link


@pytest.mark.fault("H81")
@pytest.mark.parametrize("name", ["127.0.0.1", "cxr.hospital.example"])
def test_behind_nginx_uploads_are_answered(proxied, name):
    host = f"{name}:{proxied.proxy_port}"
    headers = {"Host": host, "Origin": f"http://{host}", "Content-Type": FORM}
    body = form(*[(f"{seed}.png", png(seed)) for seed in range(3)])
    status, _, page = ask(proxied.proxy_port, "POST", "/cxr/predict", body, headers)
    assert status == 200
    assert page.decode().count('class="answer"') == 3
    status, _, page = ask(proxied.proxy_port, "POST", "/cxr/predict", body, headers | {"Origin": "http://evil.example"})
    assert status == 403
    assert f"Origin http://evil.example, addressed as {host}" in page.decode()


@pytest.mark.fault("H81")
@pytest.mark.parametrize(("excess", "status"), [(0, 415), (1, 413), (4 * 2**20, 413)])
def test_behind_nginx_requests_of_the_largest_size_are_read(proxied, excess, status):
    body = form(("x.png", bytes(MAX_REQUEST_BYTES + excess - len(form(("x.png", b""))))))
    found, _, page = ask(proxied.proxy_port, "POST", "/cxr/predict", body, {"Content-Type": FORM})
    assert found == status
    assert (ERRORS["request_too_large"].title.encode() in page) == (excess == 1)  # much more the proxy refuses itself


@pytest.mark.fault("H80")
def test_behind_nginx_the_log_has_the_visitors_address_not_what_he_writes(proxied):
    connection = HTTPConnection("127.0.0.1", proxied.proxy_port, source_address=("127.0.0.9", 0), timeout=30)
    connection.request("GET", "/cxr/healthz", headers={"X-Forwarded-For": "203.0.113.7"})
    number = connection.getresponse().headers["X-Request-Id"]
    connection.close()
    line = next(one for one in proxied.process.stderr if number in one)
    assert json.loads(line[line.index("{") :])["client"] == "127.0.0.9"


@pytest.mark.fault("H81")
def test_behind_nginx_the_form_works_in_a_browser(proxied, browser):
    page = browser.new_page()
    page.goto(f"http://cxr.hospital.example:{proxied.proxy_port}/cxr/")
    page.set_input_files("input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": png(3)})
    page.click("form.upload button[type=submit]")
    page.wait_for_selector("canvas", state="attached")  # style sheets and scripts came, too
    page.close()


@pytest.mark.fault("H62")
def test_behind_nginx_that_keeps_the_host_to_itself_the_refusal_names_the_cure(tmp_path):
    if NGINX is None:
        pytest.skip("no nginx is installed; apt-get install nginx-light")
    bare = "location / { proxy_pass http://127.0.0.1:5000; }"
    with running_site() as running, running_nginx(tmp_path, running.port, bare) as port:
        headers = {"Host": "cxr.hospital.example", "Origin": "http://cxr.hospital.example", "Content-Type": FORM}
        status, _, page = ask(port, "POST", "/predict", form(("x.png", png())), headers)
        assert status == 403
        words = f"Origin http://cxr.hospital.example, addressed as 127.0.0.1:{running.port}"
        assert words in page.decode()
        assert "--trusted-host cxr.hospital.example" in page.decode()
