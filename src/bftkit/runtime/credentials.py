"""Certificates and keys: a private authority per cluster, the files, and the TLS contexts made from them.

Every certificate says in a URI whom it was made for, ``bftkit://<cluster>/<role>/<name>``; who that is to us is
decided from it after the TLS handshake (`peer_identity`), not from host names. TLS keys are ECDSA P-256, which every
TLS library knows; the keys that votes and commands are signed with are separate (Ed25519, `write_signing_key`).
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol, get_args

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bftkit.errors import ConfigurationError, HandshakeRefused
from bftkit.runtime.clock import SystemClock
from bftkit.wire.auth import SigningKey
from bftkit.wire.handshake import CertificateRole, ChannelIdentity

AUTHORITY_FILE: Final = "authority.pem"
"""The authority's certificate; every node and client has a copy."""
AUTHORITY_KEY_FILE: Final = "authority.key"
"""The authority's private key; it stays with the operator."""
CERTIFICATE_FILE: Final = "certificate.pem"
"""The certificate of a node, client or operator."""
CERTIFICATE_KEY_FILE: Final = "certificate.key"
"""Its private key."""

ROLES: Final[tuple[str, ...]] = get_args(CertificateRole)
"""What a certificate can let its owner be."""
AUTHORITY_DAYS: Final = 3650
"""How long an authority is valid unless it is said otherwise."""
CERTIFICATE_DAYS: Final = 825
"""How long a certificate is valid unless it is said otherwise."""
CLOCK_SKEW: Final = timedelta(hours=1)
"""How far before its making a certificate is valid, as machines' clocks differ."""
LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
"""The addresses that every certificate names, for tools that insist on one."""

_URI_SCHEME: Final = "bftkit://"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SEED_LINE: Final = re.compile(r"ed25519:([0-9a-f]{64})\n?")


class Authority:
    """The one who says who belongs to a cluster; its key does not show itself."""

    __slots__ = ("certificate", "cluster_id", "key")

    def __init__(self, cluster_id: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.cluster_id = cluster_id
        """The cluster that it speaks for."""
        self.certificate = certificate
        """Its self-signed certificate."""
        self.key = key
        """What it signs certificates with."""

    def __repr__(self) -> str:
        return f"<Authority of {self.cluster_id!r}>"


class Credentials:
    """A certificate with its private key, and the authority to check others by; the key does not show itself."""

    __slots__ = ("authority_pem", "certificate_pem", "key_pem")

    def __init__(self, certificate_pem: bytes, key_pem: bytes, authority_pem: bytes) -> None:
        self.certificate_pem = certificate_pem
        """Whom it was made for."""
        self.key_pem = key_pem
        """The private key."""
        self.authority_pem = authority_pem
        """The certificate of the authority that made it."""

    def __repr__(self) -> str:
        return f"<Credentials {certificate_digest(self.certificate_pem).hex()[:16]}>"


class CredentialFiles(msgspec.Struct, frozen=True):
    """Checked files, ready for a TLS context."""

    certificate: Path
    """The own certificate."""
    key: Path
    """Its private key."""
    authority: Path
    """The certificate of the cluster's authority."""
    cluster_id: str
    """The cluster that the own certificate names."""
    role: str
    """The role that it names."""
    name: str
    """The owner that it names."""
    digest: bytes
    """SHA-256 of the own certificate (DER), for the handshake's hello."""
    expires_at: datetime
    """When the own certificate ends; worth a metric."""


class TLSObject(Protocol):
    """What `peer_identity` needs of an `ssl.SSLObject` or `ssl.SSLSocket`."""

    def getpeercert(self, binary_form: bool = False, /) -> object:
        """Return the peer's certificate, DER if binary."""


# --- Making --------------------------------------------------------------------------------------------------------


def create_authority(cluster_id: str, *, now: datetime | None = None, valid_days: int = AUTHORITY_DAYS) -> Authority:
    """Make a new private authority for one cluster; `now` is for tests."""
    _check_name("cluster", cluster_id)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"bftkit {cluster_id}")])
    builder = (
        _dated(x509.CertificateBuilder(), now, valid_days)
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Authority(cluster_id, builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: Authority,
    role: CertificateRole,
    name: str,
    *,
    hosts: Sequence[str] = (),
    now: datetime | None = None,
    valid_days: int = CERTIFICATE_DAYS,
) -> Credentials:
    """Make a certificate with a new key; `hosts` are further addresses to name, `now` is for tests."""
    if role not in ROLES:
        raise ConfigurationError(f"no certificate role {role!r}; there are {', '.join(ROLES)}")
    _check_name(role, name)
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if role == "node":
        # Without this a certificate cannot stand at the serving end of TLS, whatever its URI says.
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    uri = x509.UniformResourceIdentifier(f"{_URI_SCHEME}{authority.cluster_id}/{role}/{name}")
    names = [uri, *map(_host_name, dict.fromkeys((*LOOPBACK_HOSTS, *hosts)))]
    builder = (
        _dated(x509.CertificateBuilder(), now, valid_days)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    certificate = builder.sign(authority.key, hashes.SHA256())
    return Credentials(_pem(certificate), _private_pem(key), _pem(authority.certificate))


# --- Files ---------------------------------------------------------------------------------------------------------


def write_authority(authority: Authority, directory: Path) -> None:
    """Write an authority's certificate and key; existing files are never replaced."""
    write_private_file(directory / AUTHORITY_KEY_FILE, _private_pem(authority.key))
    _write_file(directory / AUTHORITY_FILE, _pem(authority.certificate), 0o644)


def read_authority(directory: Path) -> Authority:
    """Read what `write_authority` wrote."""
    certificate = _read_certificate(directory / AUTHORITY_FILE)
    path = directory / AUTHORITY_KEY_FILE
    try:
        key = serialization.load_pem_private_key(read_private_file(path), None)
    except (ValueError, TypeError):
        raise ConfigurationError(f"{path} does not hold a private key without passphrase") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigurationError(f"{path} is not the key of {directory / AUTHORITY_FILE}")
    organization = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    cluster_id = str(organization[0].value).removeprefix("bftkit ") if organization else ""
    _check_name("cluster", cluster_id)
    return Authority(cluster_id, certificate, key)


def write_credentials(credentials: Credentials, directory: Path) -> None:
    """Write certificate, key and the authority's certificate; existing files are never replaced."""
    write_private_file(directory / CERTIFICATE_KEY_FILE, credentials.key_pem)
    _write_file(directory / CERTIFICATE_FILE, credentials.certificate_pem, 0o644)
    _write_file(directory / AUTHORITY_FILE, credentials.authority_pem, 0o644)


def read_credentials(directory: Path, *, now: datetime | None = None) -> CredentialFiles:
    """Check the files that `write_credentials` wrote: there, private, of one cluster, and valid now."""
    return credential_files(
        directory / CERTIFICATE_FILE, directory / CERTIFICATE_KEY_FILE, directory / AUTHORITY_FILE, now=now
    )


def credential_files(path: Path, key: Path, authority: Path, *, now: datetime | None = None) -> CredentialFiles:
    """Check a certificate, its key and the authority's certificate, wherever they lie.

    `now` is the time by which the certificate is judged; the machine's where it is not given.
    """
    certificate = _read_certificate(path)
    check_private_file(key)
    _read_certificate(authority)
    try:
        cluster_id, role, name = _identity(certificate)
    except HandshakeRefused as refusal:
        raise ConfigurationError(f"{path}: {refusal.reason}") from None
    now = now or SystemClock().wall_time()
    if now > certificate.not_valid_after_utc:
        raise ConfigurationError(f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it")
    if now < certificate.not_valid_before_utc:
        raise ConfigurationError(
            f"{path} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; is the clock right?"
        )
    return CredentialFiles(
        certificate=path,
        key=key,
        authority=authority,
        cluster_id=cluster_id,
        role=role,
        name=name,
        digest=sha256(certificate.public_bytes(serialization.Encoding.DER)).digest(),
        expires_at=certificate.not_valid_after_utc,
    )


def write_signing_key(path: Path, key: SigningKey) -> None:
    """Write the key that votes or commands are signed with; an existing file is never replaced."""
    write_private_file(path, f"ed25519:{key.seed().hex()}\n".encode())


def read_signing_key(path: Path) -> SigningKey:
    """Read what `write_signing_key` wrote; no error shows any of it."""
    match = _SEED_LINE.fullmatch(read_private_file(path).decode("ascii", "replace"))
    if match is None:
        raise ConfigurationError(f"{path} does not hold a signing key (one line, ed25519: and 64 hex digits)")
    return SigningKey(bytes.fromhex(match[1]))


def write_private_file(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read, in a folder of the same kind, and make it durable."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_file(path, content, 0o600)


def read_private_file(path: Path) -> bytes:
    """Return the content of a private file; raise `ConfigurationError` if others may read it."""
    try:
        with path.open("rb") as file:
            _check_private(path, os.fstat(file.fileno()))
            return file.read()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error


def check_private_file(path: Path) -> None:
    """Raise `ConfigurationError` if a private file is missing, or readable by others."""
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    _check_private(path, status)


# --- TLS -----------------------------------------------------------------------------------------------------------


def server_context(files: CredentialFiles) -> ssl.SSLContext:
    """Return the context of a listening end: TLS 1.3, a certificate of the same authority demanded."""
    return _context(ssl.PROTOCOL_TLS_SERVER, files)


def client_context(files: CredentialFiles) -> ssl.SSLContext:
    """Return the context of a dialling end: TLS 1.3, a node's certificate of the same authority demanded."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


def peer_identity(tls: TLSObject, cluster_id: str) -> ChannelIdentity:
    """Return whom the certificate at the other end was made for; raise `HandshakeRefused` if that is not said."""
    der = tls.getpeercert(True)
    if not isinstance(der, bytes):
        raise HandshakeRefused("the other side showed no certificate")
    try:
        certificate = x509.load_der_x509_certificate(der)
        cluster, role, name = _identity(certificate)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise HandshakeRefused("the other side's certificate cannot be read") from None
    if cluster != cluster_id:
        raise HandshakeRefused(f"the certificate is of cluster {cluster!r}; this is cluster {cluster_id!r}")
    return ChannelIdentity(role, name, sha256(der).digest())


def certificate_digest(certificate_pem: bytes) -> bytes:
    """Return SHA-256 of a certificate (DER), as `peer_identity` gives it."""
    return sha256(ssl.PEM_cert_to_DER_cert(certificate_pem.decode("ascii"))).digest()


_VERIFY_REASONS: Final = {
    9: "the other side's certificate is not valid yet; are both clocks right?",
    10: "the other side's certificate has expired; renew it (or set the clock)",
    18: "the other side's certificate is self-signed, not made by this cluster's authority",
    19: "the other side's certificate was made by another authority",
    20: "the other side's certificate was made by another authority",
    21: "the other side's certificate was made by another authority",
    7: "the other side's certificate was made by another authority",
    26: "the other side's certificate was not made for this end of a connection",
    79: "the other side's certificate was made by something that is no authority",
}
"""OpenSSL's X509_V_ERR_* numbers (x509_vfy.h) that an operator meets."""
_ALERT_REASONS: Final = {
    "CERTIFICATE_EXPIRED": "the other side says that this side's certificate has expired (or is not valid yet)",
    "UNKNOWN_CA": "the other side does not know the authority of this side's certificate",
    "CERTIFICATE_REQUIRED": "the other side demands a certificate",
    "UNSUPPORTED_CERTIFICATE": "the other side does not take this side's certificate at this end of a connection",
    "BAD_CERTIFICATE": "the other side finds this side's certificate bad; is its clock right?",
    "PROTOCOL_VERSION": "the other side does not speak TLS 1.3",
    "UNSUPPORTED_PROTOCOL": "the other side does not speak TLS 1.3",
    "WRONG_VERSION_NUMBER": "the other side does not speak TLS",
}


def tls_refusal(error: ssl.SSLError) -> HandshakeRefused:
    """Say in an operator's words why a TLS handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = _VERIFY_REASONS.get(error.verify_code)
        return HandshakeRefused(reason or f"the other side's certificate is not accepted: {error.verify_message}")
    for part, reason in _ALERT_REASONS.items():
        if part in (error.reason or ""):
            return HandshakeRefused(reason)
    return HandshakeRefused(f"TLS failed: {error.reason or type(error).__name__}")


# --- Parts ---------------------------------------------------------------------------------------------------------


def _context(protocol: int, files: CredentialFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Who the other side is, is read from the URI in its certificate; host names and addresses may change.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        # A resumed session would skip the check of the certificate.
        context.num_tickets = 0
    check_private_file(files.key)
    try:
        # An empty passphrase: a locked key is an error, never a question on the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
        context.load_verify_locations(files.authority)
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error.strerror
        raise ConfigurationError(f"{files.certificate}, {files.key} or {files.authority}: {reason}") from error
    return context


def _identity(certificate: x509.Certificate) -> tuple[str, str, str]:
    """Return (cluster, role, name) of a certificate's one bftkit URI."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise HandshakeRefused("the certificate names nobody") from None
    uris = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith(_URI_SCHEME)]
    parts = uris[0].removeprefix(_URI_SCHEME).split("/") if len(uris) == 1 else []
    if len(parts) != 3 or parts[1] not in ROLES or not all(map(_NAME.fullmatch, parts)):
        raise HandshakeRefused(f"the certificate does not say {_URI_SCHEME}<cluster>/<role>/<name> exactly once")
    return parts[0], parts[1], parts[2]


def _check_name(what: str, name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{what} name {name!r}: 1 to 64 letters, digits, dots, dashes, underscores, a letter or digit first"
        )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _dated(builder: x509.CertificateBuilder, now: datetime | None, valid_days: int) -> x509.CertificateBuilder:
    start = now or SystemClock().wall_time()
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(start - CLOCK_SKEW)
        .not_valid_after(start + timedelta(days=valid_days))
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError:
        raise ConfigurationError(f"{path} does not hold a certificate") from None


def _check_private(path: Path, status: os.stat_result) -> None:
    if status.st_mode & 0o077:
        raise ConfigurationError(f"others may read the private file {path}; run: chmod 600 {path}")
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(f"the private file {path} belongs to another user; run: chown {os.geteuid()} {path}")


def _write_file(path: Path, content: bytes, mode: int) -> None:
    """Write a new file and sync it and its folder."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists and is not replaced") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
