"""Which names the site answers to, and whose requests it takes: names are compared as names."""

import re
import socket

import pytest
from quick_site import ready_slot
from site_tools import ask, ask_raw, png, quick_client, running_site, shared_decoder, upload

import app as site
from cxr.site.arguments import parse_args
from cxr.site.limits import host_of_user, is_loopback, sent_by_another_site, split_host, trusted_hosts, url_prefix

MALFORMED = (
    "http://[", "[", "]", "[::1", "::1]", "http://[::1", "http://]", "//", ":", "@", "a:b:c", "[]:80", "a:99999999999",
    "%", "\t", "ünïcode", "\x7f", "http://a b", ";;;==,,", "q=;q=x", "bytes=-", "W/\"", '"', "0" * 5000, "-" * 3000,
    "multipart/form-data; boundary=", "a/b;c*=utf-8'", "Basic", "Bearer \xff", "Thu, 99 Foo 0000", "=" * 100,
)  # fmt: skip
PARSED_HEADERS = (
    "Host", "Origin", "Referer", "Sec-Fetch-Site", "Accept", "Accept-Language", "Accept-Encoding", "Accept-Charset",
    "Content-Type", "Content-Encoding", "Cookie", "Authorization", "Range", "If-Range", "If-None-Match", "If-Match",
    "If-Modified-Since", "If-Unmodified-Since", "Cache-Control", "Date", "Expect", "X-Forwarded-Host", "Forwarded",
    "X-HTTP-Method-Override", "Transfer-Encoding", "Content-Length", "Connection", "Upgrade", "TE",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost", ("localhost", None)),
        ("LOCALHOST:5000", ("localhost", 5000)),
        ("cxr.example.", ("cxr.example", None)),
        ("CXR.example.:80", ("cxr.example", 80)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]", ("[::1]", None)),
        ("[0:0:0:0:0:0:0:1]:5000", ("[::1]", 5000)),
        ("[FE80::A]", ("[fe80::a]", None)),
        ("my_service:8080", ("my_service", 8080)),
        ("bücher.example", ("xn--bcher-kva.example", None)),
        ("", None),
        (".", None),
        ("a:b", None),
        ("a:", None),
        ("[::1", None),
        ("[::g]", None),
        ("http://a", None),
        ("a/b", None),
        ("a b", None),
        ("user@a", None),
    ],
)
def test_a_host_is_split_and_written_in_one_way(text, expected):
    assert split_host(text) == expected


@pytest.mark.parametrize(
    "text", ["CXR.Example", "cxr.example:5000", " cxr.example. ", "http://cxr.example/", "https://CXR.example:8443/x?y"]
)
@pytest.mark.fault("H61")
def test_a_trusted_host_may_be_written_with_capitals_a_port_or_as_an_address(text):
    assert host_of_user(text) == "cxr.example"
    client = site.create_app(
        ready_slot(),
        shared_decoder(),
        trusted_hosts=trusted_hosts("0.0.0.0", "0.0.0.0", [host_of_user(text)]),  # noqa: S104
    ).test_client()
    for host in ("cxr.example", "CXR.EXAMPLE:8080", "cxr.example.", "127.0.0.1:5000", "localhost", "[::1]:5000"):
        assert client.get("/healthz", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "cxr.example.evil", "127.0.0.1.evil.example", "", "["):
        assert client.get("/healthz", headers={"Host": host}).status_code == 400, host


@pytest.mark.fault("H61")
def test_a_trusted_host_that_is_none_is_refused_in_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        parse_args(["--trusted-host", "http://["])
    with pytest.raises(SystemExit, match="2"):
        parse_args(["--trusted-host", "a b"])
    assert "--trusted-host" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "address", "protected"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.2", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("localhost.", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("workstation", "127.0.1.1", True),
        ("0.0.0.0", "0.0.0.0", False),  # noqa: S104
        ("192.168.0.7", "192.168.0.7", False),
        ("", "0.0.0.0", False),  # noqa: S104
        ("fe80::1%eth0", "fe80::1%eth0", False),
    ],
)
@pytest.mark.fault("H61")
def test_every_local_address_is_protected_against_rebinding(host, address, protected):
    assert is_loopback(address) == protected
    names = trusted_hosts(host, address, [])
    assert (names is not None) == protected
    if protected:
        assert host_of_user(host) in names
        assert {"localhost", "127.0.0.1", "[::1]"} <= names
        assert "evil.example" not in names


def test_hosts_without_a_name_leave_those_that_are_given():
    assert "cxr.example" in trusted_hosts("", "0.0.0.0", ["cxr.example"])  # noqa: S104
    assert "cxr.example" in trusted_hosts("fe80::1%eth0", "fe80::1%eth0", ["cxr.example"])


def test_an_address_that_cannot_be_listened_on_is_code_3(capsys):
    for host in ("a..b", "no.such.name.invalid", "300.1.1.1"):
        assert site.main(["--host", host, "--port", "0"]) == 3
    assert len(capsys.readouterr().err.strip().splitlines()) == 3


@pytest.mark.parametrize(
    ("origin", "host", "foreign"),
    [
        ("http://cxr.example", "cxr.example", False),
        ("http://cxr.example", "CXR.example:80", False),
        ("http://CXR.EXAMPLE:80", "cxr.example.", False),
        ("https://cxr.example", "cxr.example:443", False),
        ("https://cxr.example", "cxr.example", False),
        ("http://[0::1]:5000", "[::1]:5000", False),
        ("http://cxr.example:8080", "cxr.example", True),
        ("http://cxr.example", "cxr.example:8080", True),
        ("http://evil.example", "cxr.example", True),
        ("null", "cxr.example", True),
        ("http://[", "cxr.example", True),
        ("file://", "cxr.example", True),
        ("http://cxr.example", "", True),
        ("http://cxr.example", None, True),
        (None, "cxr.example", False),
    ],
)
@pytest.mark.fault("H62")
def test_an_origin_is_compared_as_scheme_name_and_port(origin, host, foreign):
    assert sent_by_another_site(None, origin, host) == foreign


@pytest.mark.fault("H62")
def test_the_refusal_names_its_cause():
    client = quick_client()
    headers = {"Host": "127.0.0.1:5000", "Origin": "http://cxr.hospital.example"}
    for path in ("/predict", "/api/predict"):
        answer = upload(client, png(), path=path, headers=headers)
        assert answer.status_code == 403
        for words in (
            "Origin http://cxr.hospital.example, addressed as 127.0.0.1:5000", "header Host", "pass the Host on",
            "start with --trusted-host cxr.hospital.example",
        ):  # fmt: skip
            assert words in answer.text
    for origin in ("http://[", "null", "<script>", 'http://a"><b>'):
        answer = upload(client, png(), headers={"Origin": origin})
        assert answer.status_code == 403
        assert "<script>" not in answer.text
        assert "<b>" not in answer.text


@pytest.mark.parametrize("name", PARSED_HEADERS)
@pytest.mark.fault("H63")
def test_no_header_raises(name):
    client = quick_client()
    for value in MALFORMED:
        headers = {"Sec-Fetch-Site": "same-origin", name: value}
        for path in ("/", "/nothing", "/static/style.css", "/api/model"):
            with client.get(path, headers=headers) as answer:
                assert answer.status_code < 500, (name, value)
        answer = client.post("/api/predict", headers=headers, data=b"x", content_type=None)
        assert answer.status_code < 500, (name, value)


@pytest.mark.fault("H63")
def test_no_request_line_or_header_raises_in_the_server():
    targets = ["http://[", "//[", "http://]/", "*", "http://a:b/", "/%", "/%ff", "/\x80", "http://[::1", "a", "?", "#"]
    with running_site() as running:
        for target in targets:
            request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1")
            answer = ask_raw(running.port, request)
            assert answer.split()[1] in (b"200", b"308", b"400", b"404", b"405"), target
            assert b"X-Request-Id: " in answer
        for name in PARSED_HEADERS:
            for value in MALFORMED:
                line = f"{name}: {value}\r\nConnection: close\r\n\r\n".encode()
                host = b"" if name == "Host" else b"Host: localhost\r\n"
                with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
                    connection.sendall(b"GET / HTTP/1.1\r\n" + host + line)
                    if (name, value) != ("Content-Length", "0" * 5000):  # whose body does not come
                        status = connection.recv(12)[9:]
                        assert status[:1] in (b"2", b"4") or status == b"501", (name, value)
        running.process.terminate()
        assert "Traceback" not in running.process.communicate()[1]


@pytest.mark.fault("H64")
def test_errors_of_the_server_itself_carry_a_number_that_the_log_has():
    with running_site() as running:
        requests = (b"GET / HTTP/1.1\r\nX: " + b"x" * 99_000, b"garbage", b"POST / HTTP/1.1\r\nContent-Length: -1")
        numbers = []
        for request in requests:
            head = ask_raw(running.port, request + b"\r\n\r\n").partition(b"\r\n\r\n")[0].decode()
            numbers += [line.split(": ")[1] for line in head.splitlines() if line.startswith("X-Request-Id: ")]
        running.process.terminate()
        log = running.process.communicate()[1]
    assert len(set(numbers)) == len(requests)
    assert all(number in log for number in numbers)


@pytest.mark.fault("H65")
def test_the_file_dialog_hides_nothing_that_the_site_reads():
    page = quick_client().get("/").text
    assert 'type="file"' in page
    assert " accept=" not in page


@pytest.mark.fault("H62")
def test_below_a_path_all_links_stay_there():
    assert {url_prefix(given) for given in ("/cxr", "cxr/", "//cxr//")} == {"/cxr"}
    prefix = "/cxr"
    with running_site("--url-prefix", prefix) as running:
        for path in ("/cxr/", "/"):  # a proxy may leave the path or strip it
            status, _, body = ask(running.port, path=path)
            assert status == 200
            links = re.findall(rb'(?:href|src|action)="([^"#][^"]*)"', body)
            assert len(links) > 5
            assert all(link.startswith((b"/cxr/", b"data:")) for link in links), links
        for link in {link.decode() for link in links if link.startswith(b"/cxr/static")}:
            assert ask(running.port, path=link)[0] == 200
        assert ask(running.port, path="/cxr/healthz")[0] == 200
        refused = ask_raw(running.port, b"GET / HTTP/1.1\r\nX: " + b"x" * 99_000 + b"\r\n\r\n")
        assert b'href="/cxr/' in refused
        assert b'href="/static' not in refused


def test_a_prefix_that_is_no_path_is_refused():
    for text in ("http://a/b", "/a?b", "/a b", "/%41"):
        with pytest.raises(ValueError, match="path"):
            url_prefix(text)
