"""Credentials: certificates, files that nobody else may read, and real TLS over memory buffers."""

import os
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from bftkit.errors import ConfigurationError, HandshakeRefused
from bftkit.runtime.credentials import (
    AUTHORITY_FILE,
    AUTHORITY_KEY_FILE,
    CERTIFICATE_FILE,
    CERTIFICATE_KEY_FILE,
    certificate_digest,
    client_context,
    create_authority,
    issue,
    peer_identity,
    read_authority,
    read_credentials,
    read_signing_key,
    server_context,
    tls_refusal,
    write_authority,
    write_credentials,
    write_signing_key,
)
from bftkit.wire.auth import SigningKey
from bftkit.wire.framing import FrameDecoder
from bftkit.wire.handshake import ChannelIdentity, Handshake, LocalIdentity

LONG_AGO = datetime.now(UTC) - timedelta(days=1000)
FUTURE = datetime.now(UTC) + timedelta(days=1000)


@pytest.fixture(scope="module")
def authority():
    return create_authority("demo")


@pytest.fixture(scope="module")
def strangers_authority():
    return create_authority("demo")


@pytest.fixture
def files_of(tmp_path, authority):
    """Return a maker of credentials on disk."""

    def make(role, name, issuer=None, valid_at=None, **options):
        folder = tmp_path / f"{role}-{name}-{len(list(tmp_path.iterdir()))}"
        write_credentials(issue(issuer or authority, role, name, **options), folder)
        return read_credentials(folder, now=valid_at)

    return make


def connect(server_files, client_files):
    """Run a TLS handshake over memory buffers; return both ends, or raise what one of them raised first."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context(server_files).wrap_bio(to_server, to_client, server_side=True)
    client = client_context(client_files).wrap_bio(to_client, to_server, server_side=False)
    shake_hands(server, client)
    return server, client


def shake_hands(server, client):
    waiting = {"client": client, "server": server}
    for _ in range(10):
        for name, end in list(waiting.items()):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            del waiting[name]
    assert not waiting


def test_both_ends_learn_whom_the_others_certificate_names(files_of):
    node, other = files_of("node", "n0"), files_of("node", "n1")
    server, client = connect(node, other)
    assert peer_identity(server, "demo") == ChannelIdentity("node", "n1", other.digest)
    assert peer_identity(client, "demo") == ChannelIdentity("node", "n0", node.digest)
    assert server.version() == client.version() == "TLSv1.3"
    assert server.compression() is None


@pytest.mark.parametrize("role", ["client", "admin"])
def test_a_clients_role_is_detected_by_a_node(files_of, role):
    server, _ = connect(files_of("node", "n0"), files_of(role, "someone"))
    assert peer_identity(server, "demo").role == role


def test_a_clients_certificate_cannot_be_a_peer_in_the_handshake(files_of):
    node, client = files_of("node", "n0"), files_of("client", "n1")
    server, _ = connect(node, client)
    keys = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
    members = {"n0": keys[0].public_key, "n1": keys[1].public_key}
    liar = LocalIdentity("demo", "peer", "n1", keys[1], bytes(32), certificate_digest=client.digest)
    local = LocalIdentity("demo", "peer", "n0", keys[0], bytes(32), certificate_digest=node.digest)
    initiator = Handshake(liar, initiator=True, members=members, channel=None)
    responder = Handshake(local, initiator=False, members=members, channel=peer_identity(server, "demo"))
    (hello,) = FrameDecoder().feed(b"".join(initiator.start()))
    responder.receive(hello)
    with pytest.raises(HandshakeRefused, match="role 'client' cannot be used as 'peer'"):
        _ = responder.result


@pytest.mark.parametrize("role", ["client", "admin"])
def test_a_clients_certificate_cannot_serve(files_of, role):
    with pytest.raises(ssl.SSLError) as caught:
        connect(files_of(role, "someone"), files_of("node", "n1"))
    assert tls_refusal(caught.value).reason == "the other side's certificate was not made for this end of a connection"


def test_another_authoritys_certificate_is_refused_by_the_dialler(files_of, strangers_authority):
    with pytest.raises(ssl.SSLError) as caught:
        connect(files_of("node", "n0", strangers_authority), files_of("node", "n1"))
    assert tls_refusal(caught.value).reason == "the other side's certificate was made by another authority"


def test_another_authoritys_certificate_is_refused_by_the_listener(files_of, strangers_authority, tmp_path):
    # The stranger trusts the listener's authority, so only the listener can notice.
    stranger = files_of("node", "n1", strangers_authority)
    node = files_of("node", "n0")
    stranger.authority.write_bytes(node.authority.read_bytes())
    with pytest.raises(ssl.SSLError) as caught:
        connect(node, stranger)
    assert tls_refusal(caught.value).reason == "the other side's certificate was made by another authority"


def test_a_dialler_without_a_certificate_is_refused(files_of):
    node = files_of("node", "n0")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.load_verify_locations(node.authority)
    server = server_context(node).wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(server, bare.wrap_bio(to_client, to_server))


def test_tls_1_2_is_refused(files_of):
    node = files_of("node", "n0")
    old = client_context(files_of("node", "n1"))
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context(node).wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLError) as caught:
        shake_hands(server, old.wrap_bio(to_client, to_server))
    assert tls_refusal(caught.value).reason == "the other side does not speak TLS 1.3"


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (LONG_AGO, "the other side's certificate has expired; renew it (or set the clock)"),
        (FUTURE, "the other side's certificate is not valid yet; are both clocks right?"),
    ],
)
@pytest.mark.parametrize("bad_end", ["server", "client"])
def test_certificates_outside_their_time_are_refused_with_the_reason(files_of, now, reason, bad_end):
    bad = files_of("node", "n0", now=now, valid_days=100, valid_at=now)
    good = files_of("node", "n1")
    with pytest.raises(ssl.SSLError) as caught:
        connect(*((bad, good) if bad_end == "server" else (good, bad)))
    assert tls_refusal(caught.value).reason == reason


def test_an_alert_of_the_other_side_is_explained():
    error = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
    error.reason = "TLSV1_ALERT_UNKNOWN_CA"
    assert "does not know the authority" in tls_refusal(error).reason
    error.reason = "SOMETHING_ELSE"
    assert tls_refusal(error).reason == "TLS failed: SOMETHING_ELSE"


def test_a_certificate_of_another_cluster_is_refused(files_of):
    server, _ = connect(files_of("node", "n0"), files_of("node", "n1"))
    with pytest.raises(HandshakeRefused, match="of cluster 'demo'; this is cluster 'other'"):
        peer_identity(server, "other")


def test_no_certificate_is_nobody():
    class Bare:
        def getpeercert(self, binary_form=False, /):
            return None

    class Rubbish:
        def getpeercert(self, binary_form=False, /):
            return b"rubbish"

    with pytest.raises(HandshakeRefused, match="showed no certificate"):
        peer_identity(Bare(), "demo")
    with pytest.raises(HandshakeRefused, match="cannot be read"):
        peer_identity(Rubbish(), "demo")


def test_a_certificate_names_cluster_role_and_owner_once(authority):
    certificate = x509.load_pem_x509_certificate(
        issue(authority, "node", "n0", hosts=("10.0.0.1", "db.local")).certificate_pem
    )
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["bftkit://demo/node/n0"]
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "db.local"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "10.0.0.1"]


@pytest.mark.parametrize(
    "uris",
    [
        ["bftkit://demo/node/n0", "bftkit://demo/admin/n0"],
        ["bftkit://demo/boss/n0"],
        ["bftkit://demo/node/n0/more"],
        ["bftkit://demo/node"],
        ["bftkit://demo/node/"],
        ["https://demo/node/n0"],
    ],
)
def test_a_certificate_that_does_not_say_one_owner_is_refused(authority, uris):
    class End:
        def getpeercert(self, binary_form=False, /):
            return certificate.public_bytes(serialization.Encoding.DER)

    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(authority.key.public_key())
        .serial_number(1)
        .not_valid_before(LONG_AGO)
        .not_valid_after(FUTURE)
        .add_extension(names, critical=True)
        .sign(authority.key, hashes.SHA256())
    )
    with pytest.raises(HandshakeRefused, match="exactly once"):
        peer_identity(End(), "demo")


def test_an_authoritys_certificate_names_nobody(authority, tmp_path):
    write_credentials(issue(authority, "node", "n0"), tmp_path / "n0")
    (tmp_path / "n0" / CERTIFICATE_FILE).write_bytes((tmp_path / "n0" / AUTHORITY_FILE).read_bytes())
    with pytest.raises(ConfigurationError, match="names nobody"):
        read_credentials(tmp_path / "n0")


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "ä", "x" * 65, "-a", "n0\n"])
def test_names_that_do_not_fit_into_a_uri_are_refused(authority, name):
    with pytest.raises(ConfigurationError, match="letters, digits"):
        issue(authority, "node", name)
    with pytest.raises(ConfigurationError, match="letters, digits"):
        create_authority(name)


def test_an_unknown_role_is_refused(authority):
    boss: Any = "boss"
    with pytest.raises(ConfigurationError, match="no certificate role 'boss'"):
        issue(authority, boss, "n0")


def test_files_are_private_and_never_replaced(authority, tmp_path):
    folder = tmp_path / "n0"
    write_credentials(issue(authority, "node", "n0"), folder)
    write_signing_key(folder / "consensus.key", SigningKey.generate())
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes[CERTIFICATE_KEY_FILE] == modes["consensus.key"] == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    before = (folder / CERTIFICATE_KEY_FILE).read_bytes()
    with pytest.raises(ConfigurationError, match="is not replaced"):
        write_credentials(issue(authority, "node", "n0"), folder)
    assert (folder / CERTIFICATE_KEY_FILE).read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o602, 0o601])
def test_a_private_file_that_others_may_touch_is_refused_with_the_remedy(authority, tmp_path, mode):
    folder = tmp_path / "n0"
    write_credentials(issue(authority, "node", "n0"), folder)
    files = read_credentials(folder)
    key = folder / CERTIFICATE_KEY_FILE
    key.chmod(mode)
    for use in (lambda: read_credentials(folder), lambda: server_context(files), lambda: client_context(files)):
        with pytest.raises(ConfigurationError, match=f"chmod 600 {key}"):
            use()
    key.chmod(0o400)
    assert read_credentials(folder).name == "n0"


def test_an_authority_comes_back_from_its_files(authority, tmp_path):
    write_authority(authority, tmp_path / "ca")
    assert (tmp_path / "ca" / AUTHORITY_KEY_FILE).stat().st_mode & 0o777 == 0o600
    again = read_authority(tmp_path / "ca")
    assert again.cluster_id == "demo"
    assert again.certificate == authority.certificate
    write_credentials(issue(again, "node", "n0"), tmp_path / "n0")
    write_credentials(issue(authority, "node", "n1"), tmp_path / "n1")
    server, _ = connect(read_credentials(tmp_path / "n0"), read_credentials(tmp_path / "n1"))
    assert peer_identity(server, "demo").name == "n1"


def test_an_authority_with_anothers_key_is_refused(authority, strangers_authority, tmp_path):
    write_authority(authority, tmp_path / "ca")
    write_authority(strangers_authority, tmp_path / "other")
    (tmp_path / "ca" / AUTHORITY_KEY_FILE).write_bytes((tmp_path / "other" / AUTHORITY_KEY_FILE).read_bytes())
    with pytest.raises(ConfigurationError, match="is not the key of"):
        read_authority(tmp_path / "ca")
    (tmp_path / "ca" / AUTHORITY_KEY_FILE).write_bytes(b"rubbish")
    with pytest.raises(ConfigurationError, match="does not hold a private key"):
        read_authority(tmp_path / "ca")


def test_a_certificate_with_anothers_key_is_refused(authority, files_of):
    files, other = files_of("node", "n0"), files_of("node", "n1")
    files.key.write_bytes(other.key.read_bytes())
    with pytest.raises(ConfigurationError, match="KEY_VALUES_MISMATCH"):
        server_context(files)


def test_what_files_say_is_known_before_they_are_used(authority, files_of):
    files = files_of("node", "n0", valid_days=10)
    assert (files.cluster_id, files.role, files.name) == ("demo", "node", "n0")
    assert files.digest == certificate_digest(files.certificate.read_bytes())
    assert timedelta(days=9) < files.expires_at - datetime.now(UTC) < timedelta(days=11)


@pytest.mark.parametrize(("now", "reason"), [(FUTURE, "expired on .* renew it"), (LONG_AGO, "is not valid before")])
def test_an_own_certificate_outside_its_time_is_refused(files_of, now, reason):
    with pytest.raises(ConfigurationError, match=reason):
        files_of("node", "n0", valid_at=now)


@pytest.mark.parametrize("missing", [CERTIFICATE_FILE, CERTIFICATE_KEY_FILE, AUTHORITY_FILE])
def test_a_missing_or_damaged_file_is_named(authority, tmp_path, missing):
    write_credentials(issue(authority, "node", "n0"), tmp_path / "n0")
    path = tmp_path / "n0" / missing
    path.unlink()
    with pytest.raises(ConfigurationError, match=f"{path} cannot be read"):
        read_credentials(tmp_path / "n0")
    path.write_bytes(b"rubbish")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=str(path)):
        server_context(read_credentials(tmp_path / "n0"))


def test_a_signing_key_comes_back_from_its_file(tmp_path):
    key = SigningKey.generate()
    path = tmp_path / "keys" / "consensus.key"
    write_signing_key(path, key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_signing_key(path).public_key == key.public_key
    with pytest.raises(ConfigurationError, match="is not replaced"):
        write_signing_key(path, SigningKey.generate())


@pytest.mark.parametrize("content", [b"", b"ed25519:", b"ed25519:" + b"0" * 63, b"\xff" * 72, b"ed25519:" + b"g" * 64])
def test_a_damaged_signing_key_is_refused_without_showing_it(tmp_path, content):
    path = tmp_path / "consensus.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="does not hold a signing key") as caught:
        read_signing_key(path)
    assert "0" * 63 not in str(caught.value)


def test_a_key_where_no_file_can_be_is_a_mistake_of_configuration(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_signing_key(tmp_path / "none.key")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_signing_key(tmp_path / ("x" * 300), SigningKey.generate())


def test_a_readable_signing_key_is_refused(tmp_path):
    path = tmp_path / "consensus.key"
    write_signing_key(path, SigningKey.generate())
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        read_signing_key(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_that_belongs_to_another_user_is_refused(tmp_path):
    path = tmp_path / "consensus.key"
    write_signing_key(path, SigningKey.generate())
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        read_signing_key(path)


def test_nothing_shows_a_private_key(authority):
    credentials = issue(authority, "node", "n0")
    shown = repr(authority) + repr(credentials)
    assert "PRIVATE" not in shown
    assert "demo" in shown
