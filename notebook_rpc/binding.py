"""Where the server can be reached, as the settings have it: sockets, TLS, URLs; and whether that
is safe."""

from __future__ import annotations

import datetime
import ipaddress
import logging
import os
import socket
import ssl
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

import trio

from notebook_rpc.settings import ConfigError
from notebook_rpc.transport.addresses import locked, open_tcp, open_unix
from notebook_rpc.transport.tls import CannotUse, context_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from notebook_rpc.settings import Settings

logger = logging.getLogger(__name__)


LOOK_SECONDS: Final = 3600  # between two looks at how old a certificate is


class CannotBind(Exception):
    """The address cannot be listened on."""


class Refused(ConfigError):
    """The settings are valid, but would put the database at risk."""


class Binding(NamedTuple):
    """``beside`` is to run as long as connections are served."""

    sockets: Sequence[socket.socket]
    tls: ssl.SSLContext | None
    urls: Sequence[str]
    beside: Callable[[], Awaitable[None]] = trio.sleep_forever


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def check_safety(settings: Settings, *, has_tokens: bool) -> None:
    """Nothing but loopback without tokens and TLS, unless the user says that this is meant.

    Raises:
        Refused: the message says what is missing.
    """
    if settings.uds or settings.stdio or _is_loopback(settings.host):
        return
    missing = [
        what
        for what, there in (("--bearer-token-file", has_tokens), ("--tls-cert", _has_tls(settings)))
        if not there
    ]
    if not missing:
        return
    if not settings.insecure:
        raise Refused(
            f"--host {settings.host!r} would let others in without {' and '.join(missing)}; give "
            "these, listen on 127.0.0.1 behind a proxy, or say --insecure if it is meant"
        )
    logger.warning("listening on %s without %s", settings.host, " and ".join(missing))


def check_tls(settings: Settings) -> None:
    """Find out whether the certificate can be used. Raises ``ConfigError`` as ``bind`` does."""
    _tls(settings)


async def bind(
    settings: Settings, inherited: Sequence[socket.socket] = (), *, has_tokens: bool = False
) -> Binding:
    """Listen where *settings* say, or on sockets that are *inherited*.

    Raises:
        CannotBind: the message says which address, and why.
        Refused: an inherited socket is not as safe as it would have to be.
        ConfigError: the certificate cannot be used.
    """
    tls = _tls(settings)
    if inherited:
        for sock in inherited:
            if not _is_unix(sock):
                at = replace(settings, host=sock.getsockname()[0])
                check_safety(at, has_tokens=has_tokens)
        urls = [_url(tls, sock) for sock in inherited]
        return Binding(inherited, tls, urls, _renewal(settings, tls))
    try:
        if settings.uds:
            return _bind_unix(Path(settings.uds), tls)
        sockets = await open_tcp(settings.host, settings.port)
    except OSError as exc:
        raise CannotBind(exc.strerror or str(exc)) from exc
    urls = [_url(tls, sock) for sock in sockets]
    return Binding(sockets, tls, urls, _renewal(settings, tls))


@contextmanager
def removed_at_the_end(path: str) -> Iterator[None]:
    """Unlink the Unix socket at *path*, if any, unless it is another server's by then."""
    ours = os.stat(path).st_ino if path else None  # noqa: PTH116
    try:
        yield
    finally:
        if path:
            try:
                with locked(Path(path).parent):
                    if os.stat(path).st_ino == ours:  # noqa: PTH116
                        os.unlink(path)  # noqa: PTH108
            except FileNotFoundError:
                logger.debug("%s has been removed already", path)
            except OSError as exc:  # it is replaced by the next server
                logger.warning("cannot remove %s: %s", path, exc.strerror)


def _bind_unix(path: Path, tls: ssl.SSLContext | None) -> Binding:
    if os.name == "nt":
        raise ConfigError("--uds needs a POSIX system")
    if tls is not None:
        raise ConfigError("--uds needs no TLS: nothing of it leaves this machine")
    sock = open_unix(path)
    return Binding([sock], None, [_unix_url(path)])


def _has_tls(settings: Settings) -> bool:
    return bool(settings.tls_generate or settings.tls_cert)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise ConfigError("--tls-cert and --tls-key need each other")
    if settings.tls_cert and settings.tls_generate:
        raise ConfigError("either --tls-cert or --tls-generate")
    try:
        if settings.tls_cert:
            return context_of(Path(settings.tls_cert), Path(settings.tls_key))
        return _generated(settings.host, _now()) if settings.tls_generate else None
    except CannotUse as exc:
        raise ConfigError(str(exc)) from exc


def _generated(
    host: str, now: datetime.datetime, context: ssl.SSLContext | None = None
) -> ssl.SSLContext:
    """A context with a new certificate; *context*, if there is one, which has it from now on."""
    try:
        from notebook_rpc import certificates  # noqa: PLC0415  # an extra that few need
    except ImportError as exc:
        raise ConfigError("--tls-generate needs: pip install 'notebook_rpc[tls]'") from exc
    hosts = [host] if host not in ("", "0.0.0.0", "::") else [socket.gethostname()]  # noqa: S104
    made = certificates.make(hosts, now)
    # Python's ssl reads files only; this one is ours alone and gone in a moment.
    with tempfile.TemporaryDirectory(prefix="notebook-rpc-") as folder:
        certificate, key = Path(folder, "certificate.pem"), Path(folder, "key.pem")
        certificate.write_bytes(made.certificate)
        key.write_bytes(made.key)
        if context is None:
            context = context_of(certificate, key)
        else:
            context.load_cert_chain(certificate, key)
    logger.info("made a certificate; its SHA-256 fingerprint is %s", made.fingerprint)
    return context


def _renewal(settings: Settings, tls: ssl.SSLContext | None) -> Callable[[], Awaitable[None]]:
    """What has a certificate of ours replaced before it ends."""
    if tls is None or not settings.tls_generate:
        return trio.sleep_forever
    return partial(renewing, tls, settings.host)


async def renewing(
    context: ssl.SSLContext, host: str, now: Callable[[], datetime.datetime] = _now
) -> None:
    """Give *context* a new certificate whenever the one it has, made now, is no longer fresh.

    Connections that are open keep theirs. Runs until cancelled.
    """
    from notebook_rpc import certificates  # noqa: PLC0415  # as above

    made = now()
    while True:
        await trio.sleep(LOOK_SECONDS)  # a clock that stands still while the machine sleeps
        if now() - made < certificates.FRESH:
            continue
        try:
            _generated(host, now(), context)
        except (OSError, ssl.SSLError) as exc:  # there is time to try again
            logger.error("cannot make a new certificate: %s", exc)
        else:
            made = now()


def _is_unix(sock: socket.socket) -> bool:
    return sock.family == getattr(socket, "AF_UNIX", None)  # not on Windows


def _unix_url(path: Path) -> str:
    return f"http+unix://{quote(str(path), safe='')}/"


def _url(tls: ssl.SSLContext | None, sock: socket.socket) -> str:
    if _is_unix(sock):
        return _unix_url(Path(sock.getsockname()))
    scheme = "http" if tls is None else "https"
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
