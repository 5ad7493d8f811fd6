"""Fetch a page of somebody's choice, and reach nothing that is not public on the way.

    address -> is it http(s), of an allowed host?  -> resolve ONCE -> is every address public?  -> connect to that one
    redirect -> the same again, from the start

The check and the connection use the same answer of the resolver, so one that changes its mind changes nothing. Host
and TLS name stay those of the address. Proxies and credentials of the environment are not looked at. There is a cap on
bytes, on bytes after decompression, on the whole time, on redirects; only text is taken.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import certifi
import httpcore
import httpx

from bandits.settings.pilot import PilotConfig
from graphs.errors import IngestError

MAX_BYTES = 10 * 1024 * 1024
_CHUNK = 64 * 1024
_TEXT = re.compile(r"text/[\w.+-]+|application/([\w.-]+\+)?(xml|json)|application/x-subrip|application/ttml\+xml")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_REDIRECTS = (301, 302, 303, 307, 308)
_AGENT = "Pilotage (content pilot)"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]


def system_resolver(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, as the system resolves it. Raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True, slots=True)
class Guard:
    """What may be fetched."""

    hosts: tuple[str, ...] | None = None  # names, or patterns (*.example.org); None: every public host
    allow: tuple[str, ...] = ()  # networks that may be reached although they are not public, e.g. 10.1.2.0/24
    max_bytes: int = MAX_BYTES  # of a page, as sent and after decompression
    max_seconds: float = 20.0  # for a page with all its redirects; the system's resolver keeps its own time
    max_redirects: int = 5

    @classmethod
    def of(cls, settings: PilotConfig) -> Guard:
        """As pilotage.toml says."""
        return cls(settings.hosts, settings.allow, int(settings.fetch_mb * 2**20), settings.fetch_s)


@dataclass(frozen=True, slots=True)
class Page:
    """What came: the address that answered, its content type in lower case, its charset if it says one."""

    url: str
    content_type: str
    charset: str | None
    body: bytes


def fetch(url: str, guard: Guard | None = None, *, resolve: Resolve = system_resolver) -> Page:
    """Fetch one page by GET. Raises IngestError: fault `refused` (may not be fetched), `unreachable`, `too_large`,
    `unsupported` (not text). The message names the address, without credentials or query.
    """
    guard = guard or Guard()
    deadline = time.monotonic() + guard.max_seconds
    here = url
    try:
        for _ in range(guard.max_redirects + 1):
            target = check_url(here, guard)
            with _client(_Guarded(guard, resolve, deadline, shown(url))) as client:
                answer = _get(client, target, guard, deadline, shown(url))
            if isinstance(answer, Page):
                return answer
            here = str(target.join(answer))
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        reason = "it took too long" if isinstance(error, httpx.TimeoutException) else f"it does not answer ({error})"
        raise IngestError(shown(url), "unreachable", reason, "check the address, or try again later") from error
    mend = "give the address that it leads to"
    raise IngestError(shown(url), "refused", f"it redirects more than {guard.max_redirects} times", mend)


def check_url(url: str, guard: Guard) -> httpx.URL:
    """The address, if its words may be fetched; who it resolves to is checked when connecting. Raises IngestError."""
    mend = "give a public http or https address"
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise IngestError(shown(url), "refused", f"it is no address ({error})", mend) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise IngestError(shown(url), "refused", f"{parsed.scheme or 'nothing'}: cannot be fetched", mend)
    if parsed.userinfo:
        raise IngestError(shown(url), "refused", "it holds credentials", "leave user and password out")
    host = parsed.raw_host.decode("ascii").lower().rstrip(".")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:  # one spelling of an address in numbers is enough; the others only hide it
            ipaddress.IPv4Address(host)
        except ValueError:
            raise IngestError(shown(url), "refused", "its host is a number in disguise", mend) from None
    if guard.hosts is not None and not any(fnmatchcase(host, pattern.lower()) for pattern in guard.hosts):
        known = ", ".join(guard.hosts) or "none"
        raise IngestError(shown(url), "refused", f"its host is not among those allowed ({known})", "add it there")
    return parsed


def public(address: Address) -> bool:
    """Whether an address is one of the public internet, and hides none inside it that is not."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def shown(url: str) -> str:
    """An address as it may stand in a report: without credentials, query and control characters, not too long."""
    bare = re.sub(r"(?<=://)[^/@]*@", "", re.split(r"[?#]", str(url), maxsplit=1)[0])
    return "".join(character if character.isprintable() else "?" for character in bare)[:200]


class _Guarded(httpcore.NetworkBackend):
    """Connects to addresses that were checked, and to no others; nothing lasts past the deadline."""

    def __init__(self, guard: Guard, resolve: Resolve, deadline: float, name: str) -> None:
        self._allow = [ipaddress.ip_network(one) for one in guard.allow]
        self._resolve, self._deadline, self._name = resolve, deadline, name
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """See httpcore. Raises IngestError where any of the host's addresses may not be reached."""
        try:
            found = [ipaddress.ip_address(one.partition("%")[0]) for one in self._resolve(host, port)]
        except OSError as error:
            raise httpcore.ConnectError(f"{host} is not known: {error}") from error
        if not found:
            raise httpcore.ConnectError(f"{host} has no address")
        for address in found:
            if not public(address) and not any(address in network for network in self._allow):
                raise IngestError(
                    self._name,
                    "refused",
                    f"{host} is {address}, which is not public",
                    "give a public address, or have the network allowed",
                )
        failure: Exception | None = None
        for address in found:
            try:
                stream = self._inner.connect_tcp(str(address), port, self._left(), local_address, socket_options)
                return _Hasty(stream, self._left)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(host)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Never."""
        raise httpcore.ConnectError("a page cannot be fetched from a socket of this machine")

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0.0:
            raise httpcore.ReadTimeout("the time for this page is over")
        return left


class _Hasty(httpcore.NetworkStream):
    """A stream whose every wait ends at the deadline, however slowly its other end drips."""

    def __init__(self, inner: httpcore.NetworkStream, left: Callable[[], float]) -> None:
        self._inner, self._left = inner, left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._left())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Hasty(self._inner.start_tls(ssl_context, server_hostname, self._left()), self._left)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's word
        return self._inner.get_extra_info(info)


class _Transport(httpx.BaseTransport):
    """httpx over a pool of connections that are made by `backend`."""

    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        context = ssl.create_default_context(cafile=certifi.where())
        self._pool = httpcore.ConnectionPool(ssl_context=context, network_backend=backend, http1=True, http2=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        target = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        asked = httpcore.Request(request.method, target, headers=request.headers.raw, extensions=request.extensions)
        with _in_words_of_httpx():
            answer = self._pool.handle_request(asked)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Stream(answer.stream))

    def close(self) -> None:
        self._pool.close()


class _Stream(httpx.SyncByteStream):
    def __init__(self, inner: Any) -> None:  # noqa: ANN401 - httpcore's
        self._inner = inner

    def __iter__(self) -> Iterator[bytes]:
        with _in_words_of_httpx():
            yield from self._inner

    def close(self) -> None:
        self._inner.close()


@contextmanager
def _in_words_of_httpx() -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.ReadTimeout(str(error)) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise httpx.TransportError(str(error)) from error


def _client(backend: _Guarded) -> httpx.Client:
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "gzip, deflate", "Accept": "text/*, application/xml;q=0.9"}
    return httpx.Client(transport=_Transport(backend), headers=headers, trust_env=False, follow_redirects=False)


def _get(client: httpx.Client, url: httpx.URL, guard: Guard, deadline: float, name: str) -> Page | str:
    """The page; or where it redirects to."""
    with client.stream("GET", url) as answer:
        if answer.status_code in _REDIRECTS and "location" in answer.headers:
            return answer.headers["location"]
        if answer.status_code != 200:
            problem = f"it answers with status {answer.status_code}"
            raise IngestError(name, "unreachable", problem, "check that it can be read by anybody")
        content_type, _, rest = answer.headers.get("content-type", "text/plain").lower().partition(";")
        if not _TEXT.fullmatch(content_type.strip()):
            problem = f"it is {content_type.strip()[:80]!r}, not text"
            raise IngestError(name, "unsupported", problem, "give a page, a feed or a transcript")
        charset = re.search(r"charset=[\"']?([\w.:-]+)", rest)
        body = _body(answer, guard, deadline, name)
        return Page(str(url), content_type.strip(), charset.group(1) if charset else None, body)


def _body(answer: httpx.Response, guard: Guard, deadline: float, name: str) -> bytes:
    """The body, decompressed, never more of it than the cap."""
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise IngestError(name, "unsupported", f"it is compressed by {encoding[:20]!r}", "have it sent as it is")
    unpack = None if encoding == "identity" else zlib.decompressobj(wbits=47)
    whole, sent = bytearray(), 0
    for chunk in answer.iter_raw(_CHUNK):
        sent += len(chunk)
        room = guard.max_bytes + 1 - len(whole)
        try:
            whole += chunk if unpack is None else unpack.decompress(chunk, room)
        except zlib.error as error:
            raise IngestError(name, "format", f"its compression is broken ({error})", "check the page") from None
        if max(sent, len(whole)) > guard.max_bytes:
            problem = f"it is over {guard.max_bytes / 2**20:g} MB"
            raise IngestError(name, "too_large", problem, "give a smaller page, or its parts")
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the time for this page is over")
    return bytes(whole)
