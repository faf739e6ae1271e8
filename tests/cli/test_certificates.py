# SPDX-License-Identifier: Apache-2.0
"""``secure-fl certs``: what TLS takes of it, and what is never overwritten."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import socket
import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import click
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    load_ssh_private_key,
    load_ssh_public_key,
)

from secure_fl.cli.main import cli
from secure_fl.engines.certificates import (
    MAX_DAYS,
    make_node_key,
    make_server_certificate,
)
from secure_fl.errors import UsageError

HOST = "aggregator.example.org"


def certs(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """``secure-fl certs ARGS``, and what it printed.  Raises what it raises."""
    cli.main(["certs", *map(str, args)], "secure-fl", standalone_mode=False)
    return capsys.readouterr().out


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def shake_hands(folder: Path, ca: Path, host: str) -> str | None:
    """TLS between a server with ``folder``'s certificate and a strict client.

    The client's error is raised; None cannot come back from a handshake that held.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.crt", folder / "server.key")
    client = ssl.create_default_context(cafile=ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(far, server_side=True) as wrapped:
                wrapped.recv(1)
        except OSError:
            far.close()

    thread = Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(near, server_hostname=host) as wrapped:
            return wrapped.version()
    finally:
        near.close()
        thread.join(10)


def test_a_strict_client_takes_the_hosts_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "superlink"
    certs(capsys, "superlink", folder, "--host", HOST, "--host", "10.0.0.7")
    ca = folder / "ca.crt"
    # A SuperLink's own processes reach it over loopback.
    for host in (HOST, HOST.upper(), "10.0.0.7", "127.0.0.1", "::1", "localhost"):
        assert shake_hands(folder, ca, host) == "TLSv1.3"
    for host in ("example.org", "a." + HOST, "10.0.0.8"):
        with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid"):
            shake_hands(folder, ca, host)


def test_another_authority_is_not_believed(tmp_path: Path) -> None:
    """Nor is the server's own certificate one: it signs nobody."""
    made = make_server_certificate(tmp_path / "one", [HOST], days=1)
    other = make_server_certificate(tmp_path / "two", [HOST], days=1)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tmp_path / "one", other.ca, HOST)
    certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert limits.critical
    assert not limits.value.ca


def test_the_authority_signs_one_certificate_and_is_gone(tmp_path: Path) -> None:
    made = make_server_certificate(tmp_path / "tls", [HOST, "10.0.0.7"], days=30)
    assert set(snapshot(tmp_path / "tls")) == {"ca.crt", "server.crt", "server.key"}
    ca = x509.load_pem_x509_certificate(made.ca.read_bytes())
    server = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    server.verify_directly_issued_by(ca)
    assert made.key.read_bytes().count(b"BEGIN") == 1
    assert ca.public_key() != server.public_key()
    now = datetime.now(UTC)
    for certificate in (ca, server):
        assert certificate.not_valid_after_utc == made.valid_until
        assert certificate.not_valid_before_utc < now
    assert abs(made.valid_until - now - timedelta(days=30)) < timedelta(minutes=5)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [HOST, "localhost"]
    assert names.value.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address(text) for text in ("10.0.0.7", "127.0.0.1", "::1")
    ]


def test_a_node_key_is_what_flower_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certs(capsys, "supernode", tmp_path / "bank-a.key")
    private = load_ssh_private_key((tmp_path / "bank-a.key").read_bytes(), None)
    public = load_ssh_public_key((tmp_path / "bank-a.key.pub").read_bytes())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert isinstance(private.curve, ec.SECP384R1)
    assert public == private.public_key()


def test_private_keys_are_their_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask says."""
    before = os.umask(0)
    try:
        made = make_server_certificate(tmp_path / "tls", [HOST], days=1)
        node = make_node_key(tmp_path / "nodes" / "bank-a.key")
    finally:
        os.umask(before)
    assert mode(made.key) == mode(node.private) == 0o600
    assert mode(made.ca) == mode(made.certificate) == mode(node.public) == 0o644
    assert mode(tmp_path / "tls") == mode(tmp_path / "nodes") == 0o700


@pytest.mark.parametrize("name", ["ca.crt", "server.crt", "server.key"])
def test_a_folder_that_has_one_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    before = os.listdir(tmp_path)
    with pytest.raises(UsageError, match=f"{name} exists"):
        make_server_certificate(tmp_path, [HOST], days=1)
    assert os.listdir(tmp_path) == before
    assert not (tmp_path / "nowhere").exists()


def test_no_key_is_overwritten(tmp_path: Path) -> None:
    make_node_key(tmp_path / "bank-a.key")
    make_server_certificate(tmp_path / "tls", [HOST], days=1)
    (tmp_path / "bank-b.key.pub").write_text("another's")
    before = snapshot(tmp_path)
    again: list[Callable[[], object]] = [
        lambda: make_node_key(tmp_path / "bank-a.key"),
        lambda: make_node_key(tmp_path / "bank-b.key"),
        lambda: make_server_certificate(tmp_path / "tls", [HOST], days=1),
    ]
    for make in again:
        with pytest.raises(UsageError, match="exists") as caught:
            make()
        assert "nothing is overwritten" in caught.value.hint
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "host",
    [
        "",
        "https://aggregator.example.org",
        "aggregator.example.org:8000",
        "*.example.org",
        "-a.example.org",
        "a..example.org",
        "10.0.0.256",
        "münchen.example",
        "a b",
        "a" * 64 + ".org",
        ".".join(["a" * 60] * 5),
    ],
)
def test_what_is_no_host(tmp_path: Path, host: str) -> None:
    with pytest.raises(UsageError, match="not a host") as caught:
        make_server_certificate(tmp_path / "tls", [HOST, host], days=1)
    assert "without a port" in caught.value.hint
    assert not (tmp_path / "tls").exists()


def test_no_host_and_no_such_number_of_days(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no host"):
        make_server_certificate(tmp_path / "tls", [], days=1)
    for days in (0, -1, MAX_DAYS + 1):
        with pytest.raises(UsageError, match="days of validity"):
            make_server_certificate(tmp_path / "tls", [HOST], days=days)
    assert not (tmp_path / "tls").exists()
    with pytest.raises(click.UsageError, match="host"):
        cli.main(["certs", "superlink", str(tmp_path / "tls")], standalone_mode=False)


def test_it_says_what_goes_to_whom(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = certs(capsys, "superlink", "superlink", "--host", HOST, "--days", "90")
    said += certs(capsys, "supernode", "bank-a.key")
    assert max(map(len, said.splitlines())) <= 80
    for name in snapshot(tmp_path):
        assert name in said
    ca = ssl.PEM_cert_to_DER_cert(Path("superlink/ca.crt").read_text())
    assert hashlib.sha256(ca).digest().hex(":").upper() in "".join(said.split())
    blob = base64.b64decode(Path("bank-a.key.pub").read_text().split()[1])
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    assert f"SHA256:{digest}\n" in said


def test_help_fits(capsys: pytest.CaptureFixture[str]) -> None:
    for args in ((), ("superlink",), ("supernode",)):
        said = certs(capsys, *args, "--help")
        assert max(map(len, said.splitlines())) <= 80
        assert "..." not in said.partition("Commands:")[2]
