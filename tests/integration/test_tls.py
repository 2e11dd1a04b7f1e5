"""TLS contexts over real sockets: what they offer, whom they believe, and files that change."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from gateway.config.tls import Tls
from gateway.errors import ConfigurationError
from gateway.tls import Reloading, TlsFiles, client_context, following, server_context
from tests.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Give an authority that nobody else knows."""
    return Authority(tmp_path)


@contextmanager
def greeting(context: ssl.SSLContext) -> Iterator[int]:
    """Say who called, until the test ends; give the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            with accepted:
                accepted.settimeout(10)
                try:
                    with context.wrap_socket(accepted, server_side=True) as connection:
                        subject = (connection.getpeercert() or {}).get("subject", ((("", "nobody"),),))
                        connection.sendall(subject[0][0][1].encode())
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def call(port: int, context: ssl.SSLContext) -> tuple[str, int, tuple[str, str]]:
    """Return what the server said, the serial number of its certificate, and protocol and cipher."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        said = connection.recv(100).decode()
        shown = connection.getpeercert()
        cipher = connection.cipher()
        assert shown is not None
        assert cipher is not None
        return said, int(str(shown["serialNumber"]), 16), (str(connection.version()), cipher[0])


def test_both_sides_speak_bcp_195_only(authority: Authority) -> None:
    """TLS 1.3 by default, 1.2 with forward secrecy where the peer has no more; nothing older, no other cipher."""
    made = authority.issue("server")
    server = server_context(TlsFiles(made.certificate, made.key))
    client = client_context(peer_ca=authority.certificate)
    older = client_context(peer_ca=authority.certificate)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    weak = client_context(peer_ca=authority.certificate)
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES256-SHA:ECDHE-ECDSA-AES256-SHA384")

    with greeting(server) as port:
        assert call(port, client)[2][0] == "TLSv1.3"
        version, cipher = call(port, older)[2]
        with pytest.raises(OSError, match=r"(?i)handshake|reset"):
            call(port, weak)

    assert (version, cipher.startswith("ECDHE-"), "GCM" in cipher or "CHACHA20" in cipher) == ("TLSv1.2", True, True)
    assert server.minimum_version == client.minimum_version == ssl.TLSVersion.TLSv1_2


def test_mutual_tls_takes_the_named_authority_alone(authority: Authority, tmp_path: Path) -> None:
    """A client of ours is known by its name; one of another authority, or without a certificate, gets nothing."""
    made, friend = authority.issue("server"), authority.issue("CT1")
    stranger = Authority(tmp_path / "other", "Other Authority").issue("CT1")
    server = server_context(TlsFiles(made.certificate, made.key, peer_ca=authority.certificate), "required")

    with greeting(server) as port:
        known = client_context(TlsFiles(friend.certificate, friend.key), peer_ca=authority.certificate)
        said, _, _ = call(port, known)
        for files in (TlsFiles(stranger.certificate, stranger.key), None):
            with pytest.raises(OSError, match=r"(?i)unknown ca|certificate required|reset|decrypt"):
                call(port, client_context(files, peer_ca=authority.certificate))

    assert said == "CT1"


def test_new_files_are_taken_without_restart(authority: Authority, tmp_path: Path) -> None:
    """A renewed certificate and a changed list of authorities count from the next handshake on."""
    made, friend = authority.issue("server"), authority.issue("CT1")
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes(authority.certificate.read_bytes())
    files = TlsFiles(made.certificate, made.key, peer_ca=authorities)
    reloading = Reloading(partial(server_context, files, "required"), files.paths, 0.0)
    client = client_context(TlsFiles(friend.certificate, friend.key), peer_ca=authority.certificate)

    with greeting(following(reloading)) as port:
        said, first, _ = call(port, client)
        authority.issue("server", to=made)
        _, second, _ = call(port, client)
        made.key.write_text("half of a key")
        _, third, _ = call(port, client)
        authority.issue("server", to=made)
        authorities.write_bytes(Authority(tmp_path / "other", "Other").certificate.read_bytes())
        with pytest.raises(OSError, match=r"(?i)unknown ca|reset|decrypt"):
            call(port, client)

    assert said == "CT1"
    assert first != second == third


def test_a_client_checks_authority_and_name(authority: Authority, tmp_path: Path) -> None:
    """An unknown authority and a certificate made out to another name are refused."""
    made = authority.issue("server")

    with greeting(server_context(TlsFiles(made.certificate, made.key))) as port:
        stranger = Authority(tmp_path / "other", "Other").certificate
        with pytest.raises(ssl.SSLCertVerificationError):
            call(port, client_context(peer_ca=stranger))
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            context = client_context(peer_ca=authority.certificate)
            with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
                context.wrap_socket(plain, server_hostname="elsewhere.example")


def test_files_that_do_not_fit_are_named_and_not_shown(authority: Authority, tmp_path: Path) -> None:
    """Missing files, keys of others and wrong passwords: one sentence; a right password opens the key."""
    one, two = authority.issue("one"), authority.issue("two")
    locked = authority.issue("locked", password=b"open sesame")
    password = tmp_path / "password"

    for files in (
        TlsFiles(tmp_path / "absent.crt", one.key),
        TlsFiles(one.certificate, two.key),
        TlsFiles(locked.certificate, locked.key),
    ):
        with pytest.raises(ConfigurationError, match="cannot be used"):
            server_context(files)
    password.write_text("wrong")
    with pytest.raises(ConfigurationError, match=r"locked\.crt") as caught:
        server_context(TlsFiles(locked.certificate, locked.key, password))
    assert "wrong" not in str(caught.value)
    password.write_text("open sesame\n")
    server_context(TlsFiles(locked.certificate, locked.key, password))


def test_the_section_adds_up() -> None:
    """A key, or client certificates, without what they need are refused."""
    for wrong in ({"key": "k"}, {"http_client_certificate": "required"}):
        with pytest.raises(ValueError, match="certificate"):
            Tls(**wrong)  # type: ignore[arg-type] # as settings give it
    with pytest.raises(ValueError, match="peer_ca"):
        Tls(certificate="c", http_client_certificate="optional")  # type: ignore[arg-type]
    assert Tls(certificate="c").is_on_http  # type: ignore[arg-type]
    assert not Tls(certificate="c", http=False).is_on_http  # type: ignore[arg-type]
