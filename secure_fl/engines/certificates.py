# SPDX-License-Identifier: Apache-2.0
"""What a Flower SuperLink and its SuperNodes prove who they are with.

A SuperLink shows a TLS certificate; a SuperNode signs its requests with a key that was
registered at the SuperLink.  Both are Flower's, made for transport and for who may
connect.  They say nothing to the protocol, whose identities are those of the plan
(``secure_fl.identity``): a forged certificate costs an attacker's victim a connection,
never an update.

Each secret is made where it is used, and stays there: the server's key on the
SuperLink's host, a node's key at its bank.

X.509 and ECDSA belong to ``cryptography``: keys, serial numbers and signatures come
from its own generator, seeded by the operating system.  ``secure_fl.randomness`` is for
what the protocol draws.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import UsageError
from ..files import sync_folder

__all__ = [
    "MAX_DAYS",
    "NodeKey",
    "ServerCertificate",
    "make_node_key",
    "make_server_certificate",
]

MAX_DAYS: Final = 825
"""The longest validity that common TLS clients accept of a server."""

# A SuperLink's own processes connect to it over loopback where it listens on all
# addresses.
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
# Clocks differ: a certificate made a moment ago is valid on a clock that is behind.
_LEEWAY: Final = timedelta(hours=1)


@dataclass(frozen=True)
class ServerCertificate:
    """The files of a SuperLink, and what is read out to compare them by.

    ``fingerprint`` is SHA-256 of the DER bytes of ``ca``: upper-case pairs with
    colons, as ``openssl x509 -fingerprint -sha256`` prints it.
    """

    ca: Path
    certificate: Path
    key: Path
    valid_until: datetime
    fingerprint: str


@dataclass(frozen=True)
class NodeKey:
    """The files of a SuperNode, and its public key as ``SHA256:`` and Base64."""

    private: Path
    public: Path
    fingerprint: str


def make_server_certificate(
    folder: Path, hosts: Sequence[str], *, days: int
) -> ServerCertificate:
    """``ca.crt``, ``server.crt`` and ``server.key`` (mode 0600) in ``folder``.

    ``hosts`` are the DNS names and IP addresses by which others reach the SuperLink;
    loopback is added.  The certificate is valid for ``days`` from now.  The authority
    signs this one certificate and its private key is never written, so nobody can make
    a second one that those who trust ``ca.crt`` would believe.  A successor comes with
    a new ``ca.crt``.

    Raises UsageError for a host or a number of days that cannot be, and where one of
    the files is there already: nothing is overwritten, and nothing then written.
    """
    if not hosts:
        raise UsageError(
            "no host is given",
            hint="name the DNS names and IP addresses the SuperLink is reached by",
        )
    if not 1 <= days <= MAX_DAYS:
        raise UsageError(
            f"{days} days of validity", hint=f"choose from 1 to {MAX_DAYS}"
        )
    names = [_general_name(host) for host in dict.fromkeys((*hosts, *_LOOPBACK))]
    ca_file, certificate_file, key_file = (
        folder / name for name in ("ca.crt", "server.crt", "server.key")
    )
    _refuse_existing(key_file, certificate_file, ca_file)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _authority(ca_key, until)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _server(key, names, ca, ca_key, until)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_new(
        key_file,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        mode=0o600,
    )
    pem = serialization.Encoding.PEM
    _write_new(certificate_file, certificate.public_bytes(pem), mode=0o644)
    _write_new(ca_file, ca.public_bytes(pem), mode=0o644)
    digest = ca.fingerprint(hashes.SHA256()).hex(":").upper()
    return ServerCertificate(ca_file, certificate_file, key_file, until, digest)


def make_node_key(path: Path) -> NodeKey:
    """A SuperNode's private key at ``path`` (mode 0600), its public key at ``.pub``.

    P-384 in OpenSSH's two formats, which is what ``flower-supernode`` and ``flwr
    supernode register`` read; without a passphrase, for which Flower has no option.
    Raises UsageError where one of the files is there: nothing is overwritten.
    """
    public = path.with_name(path.name + ".pub")
    _refuse_existing(path, public)
    key = ec.generate_private_key(ec.SECP384R1())
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_new(
        path,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        ),
        mode=0o600,
    )
    line = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    _write_new(public, line + b"\n", mode=0o644)
    digest = serialization.ssh_key_fingerprint(key.public_key(), hashes.SHA256())
    return NodeKey(path, public, f"SHA256:{_base64(digest)}")


def _base64(data: bytes) -> str:
    """Without padding, as ``ssh-keygen -l`` prints it."""
    return base64.b64encode(data).decode("ascii").rstrip("=")


def _general_name(host: str) -> x509.GeneralName:
    """An IP address or a DNS name.  Raises UsageError for anything else."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    labels = host.split(".")
    # All digits would be an address that is mistyped.
    if (
        len(host) > 253
        or labels[-1].isdigit()
        or not all(_LABEL.fullmatch(label) for label in labels)
    ):
        raise UsageError(
            f"not a host: {host!r}",
            hint="a DNS name or an IP address, without a port, scheme or wildcard",
        )
    return x509.DNSName(host.lower())


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    until: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - _LEEWAY)
        .not_valid_after(until)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False
        )
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(key: ec.EllipticCurvePrivateKey, until: datetime) -> x509.Certificate:
    name = _named("secure-fl SuperLink authority")
    return (
        _begun(name, name, key.public_key(), until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _server(
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[x509.GeneralName],
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    until: datetime,
) -> x509.Certificate:
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        _begun(_named("secure-fl SuperLink"), ca.subject, key.public_key(), until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issued_by, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise UsageError(
                f"{path} exists",
                hint="choose another place: nothing is overwritten",
            )


def _write_new(path: Path, data: bytes, *, mode: int) -> None:
    """A new file with exactly ``mode``, whatever the umask, and durable."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        _refuse_existing(path)
        raise
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
