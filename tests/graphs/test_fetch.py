"""Fetching: nothing that is not public is ever connected to, whatever its spelling; nothing comes without end."""

from __future__ import annotations

import gzip
import ipaddress
import socket
import threading
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.errors import IngestError
from graphs.fetch import Guard, check_url, fetch, public, shown

HERE = Guard(allow=("127.0.0.1/32",), max_seconds=20.0)


class Handler(BaseHTTPRequestHandler):
    """Answers with what its server was told for the path."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Host"]))
        status, headers, body = self.server.pages[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for chunk in body:
                self.wfile.write(chunk)
                self.server.sent += len(chunk)
        except OSError:
            self.server.hung_up.set()

    def log_message(self, *_):
        pass


@contextmanager
def web(pages):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.pages, server.asked, server.sent = True, pages, [], 0
    server.hung_up = threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(params=["127.0.0.1", "127.0.0.2"])
def address(request):
    return request.param


@pytest.fixture
def sentinel(address):
    """A socket that listens where nobody may go. Its answer: was anybody there?"""
    with socket.create_server((address, 0)) as listening:
        listening.setblocking(False)

        def visited():
            try:
                listening.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        visited.port = listening.getsockname()[1]
        yield visited


def refused(url, guard=None, **more):
    with pytest.raises(IngestError) as caught:
        fetch(url, guard, **more)
    return caught.value.fault, str(caught.value)


DISGUISES = [
    "http://{host}:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST.:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://127。0。0。1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "https://127.0.0.1:{port}/",
    "http://user:pass@127.0.0.1:{port}/",
    "http://example.org@127.0.0.1:{port}/",
    "http://127.0.0.1%2f@127.0.0.1:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fe80::1]:{port}/",
    "http://[fd00::1]:{port}/",
    "http://100.64.0.1:{port}/",
    "http://10.0.0.1:{port}/",
    "http://192.168.1.1:{port}/",
    "http://172.16.0.1:{port}/",
    "http://224.0.0.1:{port}/",
    "http://255.255.255.255:{port}/",
    "file:///etc/hostname",
    "file://127.0.0.1/etc/hostname",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_x",
    "data:text/plain,x",
    "javascript:1",
    "//127.0.0.1:{port}/",
    "http://",
    "http:///etc/hostname",
    "http://[::1",
    "http://127.0.0.1:99999/",
    "",
]


@pytest.mark.parametrize("disguise", DISGUISES)
def test_no_spelling_of_what_is_not_public_is_connected_to(sentinel, address, disguise):
    """Refused by its words or by what it resolves to; the sentinel sees no connection."""
    url = disguise.format(port=sentinel.port, host=address)
    fault, _ = refused(url, Guard(max_seconds=5.0))

    assert fault in ("refused", "unreachable")
    assert fault == "refused" or "is not known" in str(refused(url, Guard(max_seconds=5.0)))
    assert not sentinel()


def test_the_sentinel_sees_a_connection(sentinel, address):
    """The negative control: where its network is allowed, it is reached."""
    allowed = Guard(allow=(f"{address}/32",), max_seconds=60.0)
    visit = threading.Thread(target=refused, args=(f"http://{address}:{sentinel.port}/", allowed))
    visit.start()
    while not sentinel():  # which hangs up
        assert visit.is_alive()
    visit.join()


@pytest.mark.parametrize("address", ["127.0.0.2"], indirect=True)
def test_a_redirect_is_checked_like_an_address(sentinel):
    """From where one may go to where one may not."""
    away = f"http://127.0.0.2:{sentinel.port}/"
    places = {"/away": away, "/file": "file:///etc/hostname", "/again": "/away", "/loop": "/loop", "/end": "/page"}
    pages = {path: (302, {"Location": place}, []) for path, place in places.items()}
    pages["/page"] = (200, {"Content-Type": "text/plain"}, [b"here"])
    with web(pages) as (_, root):
        assert "is 127.0.0.2, which is not public" in refused(f"{root}/away", HERE)[1]
        assert "is 127.0.0.2, which is not public" in refused(f"{root}/again", HERE)[1]
        assert "file: cannot be fetched" in refused(f"{root}/file", HERE)[1]
        assert "redirects more than 5 times" in refused(f"{root}/loop", HERE)[1]
        assert fetch(f"{root}/end", HERE).body == b"here"
    assert not sentinel()


def test_a_resolver_that_changes_its_mind_is_asked_once():
    """What was checked is what is connected to; the name stays that of the address."""
    with web({"/": (200, {"Content-Type": "text/html; charset=latin-1"}, [b"h\xe9"])}) as (server, _):
        answers = iter([["127.0.0.1"], ["127.0.0.2"]])
        page = fetch(f"http://news.example:{server.server_port}/", HERE, resolve=lambda host, port: next(answers))

        assert (page.body, page.content_type, page.charset) == (b"h\xe9", "text/html", "latin-1")
        assert server.asked == [("/", f"news.example:{server.server_port}")]
        assert next(answers) == ["127.0.0.2"]


@pytest.mark.parametrize("address", ["127.0.0.1"], indirect=True)
@pytest.mark.parametrize("found", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::ffff:127.0.0.1"], ["fe80::1%lo"]])
def test_a_name_with_any_address_that_is_not_public_is_refused(sentinel, found):
    """One public address does not excuse another."""
    fault, said = refused(f"http://rebind.example:{sentinel.port}/", resolve=lambda host, port: found)

    assert (fault, "which is not public" in said) == ("refused", True)
    assert not sentinel()


def test_a_name_that_is_not_known_is_unreachable():
    """And a host without an address as well."""

    def unknown(host, port):
        raise socket.gaierror("no such host")

    assert refused("http://nowhere.example/", resolve=unknown)[0] == "unreachable"
    assert refused("http://nowhere.example/", resolve=lambda host, port: [])[0] == "unreachable"


def test_the_environments_proxy_is_not_asked(monkeypatch):
    """It could reach what this process may not."""
    with web({"/": (200, {"Content-Type": "text/plain"}, [b"direct"])}) as (_, root):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert fetch(root, HERE).body == b"direct"


BIG = b"x" * 2**16
GOOD = {"Content-Type": "text/plain"}
FIFTY_MB = [BIG] * 800


def test_a_page_of_fifty_megabytes_is_cut_off():
    """Its sender is left alone after the cap."""
    with web({"/": (200, GOOD, FIFTY_MB)}) as (server, root):
        assert refused(root, HERE)[0] == "too_large"
        assert server.hung_up.wait(10)
        assert server.sent < 20 * 2**20


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_page_that_unpacks_to_fifty_megabytes_is_cut_off(pack):
    """The cap counts what it becomes, before it becomes it."""
    name = "gzip" if pack is gzip.compress else "deflate"
    small = pack(b"hello")
    pages = {
        "/bomb": (200, GOOD | {"Content-Encoding": name}, [pack(b"x" * 50 * 2**20)]),
        "/small": (200, GOOD | {"Content-Encoding": name}, [small]),
        "/lie": (200, GOOD | {"Content-Encoding": name}, [b"not at all"]),
        "/brotli": (200, GOOD | {"Content-Encoding": "br"}, [small]),
    }
    with web(pages) as (_, root):
        assert refused(f"{root}/bomb", HERE)[0] == "too_large"
        assert fetch(f"{root}/small", HERE).body == b"hello"
        assert refused(f"{root}/lie", HERE)[0] == "format"
        assert refused(f"{root}/brotli", HERE)[0] == "unsupported"


def test_a_page_that_drips_ends_with_its_time():
    """Each byte comes soon enough; all of them do not."""
    stop = threading.Event()
    drip = (b"x" for _ in iter(lambda: stop.wait(0.02), True))
    with web({"/": (200, GOOD, drip)}) as (_, root):
        fault, said = refused(root, Guard(allow=HERE.allow, max_seconds=0.3))
        stop.set()
    assert (fault, "took too long" in said) == ("unreachable", True)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ((404, GOOD, []), "unreachable"),
        ((500, GOOD, []), "unreachable"),
        ((302, {}, []), "unreachable"),
        ((200, {"Content-Type": "application/pdf"}, [b"%PDF"]), "unsupported"),
        ((200, {"Content-Type": "image/png"}, []), "unsupported"),
        ((200, {"Content-Type": "application/octet-stream"}, []), "unsupported"),
    ],
)
def test_what_is_no_text_is_refused(answer, fault):
    """By the status, or by what it says it is; before its body is read."""
    with web({"/": answer}) as (_, root):
        assert refused(root, HERE)[0] == fault


def test_only_hosts_of_the_list_are_fetched_where_there_is_one():
    """Names or patterns; a pattern for what is below a name is none for the name, or for one that ends like it."""
    guard = Guard(hosts=("example.org", "*.example.net"))
    for url in ("https://example.org/a", "https://EXAMPLE.org./", "https://a.b.example.net/"):
        check_url(url, guard)
    for url in ("https://www.example.org/", "https://example.net/", "https://badexample.net/", "https://a.test/"):
        with pytest.raises(IngestError, match="not among those allowed"):
            check_url(url, guard)
    with pytest.raises(IngestError, match="not among those allowed"):
        check_url("https://example.org/", Guard(hosts=()))


def test_a_report_shows_neither_credentials_nor_a_query():
    """Nor what could move a cursor."""
    said = shown("https://me:secret@example.org/a\x1b[2J?token=secret#secret")

    assert "secret" not in said
    assert said == "https://example.org/a?[2J"
    assert "secret" not in refused("https://me:secret@example.org/?token=secret")[1]


INNER = [ipaddress.ip_network(one) for one in ("127.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16")]
numbers = st.sampled_from(INNER).flatmap(
    lambda network: st.integers(int(network[0]), int(network[-1])).map(ipaddress.IPv4Address)
)


@settings(deadline=None)  # the first one imports
@given(numbers)
def test_no_private_address_is_public_in_any_of_its_wrappings(inner):
    """Bare, mapped, 6to4, Teredo, NAT64."""
    bits = int(inner)
    wrapped = [
        ipaddress.IPv6Address((0xFFFF << 32) | bits),
        ipaddress.IPv6Address((0x2002 << 112) | (bits << 80)),
        ipaddress.IPv6Address((0x20010000 << 96) | (bits ^ 0xFFFFFFFF)),
        ipaddress.IPv6Address((0x64FF9B << 96) | bits),
    ]

    assert not public(inner)
    assert not any(public(one) for one in wrapped)


def test_public_addresses_are_public():
    """The negative control."""
    for one in ("93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert public(ipaddress.ip_address(one)), one
