"""The handshake: who gets through, who does not, and what both are told."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bftkit.errors import ConfigurationError, HandshakeRefused, WireError
from bftkit.wire.auth import SigningKey
from bftkit.wire.framing import FrameDecoder, FrameType, encode_frame
from bftkit.wire.handshake import (
    ChannelIdentity,
    Handshake,
    LocalIdentity,
    PeerIdentity,
    digest_settings,
    refuse_frame,
)

KEYS = {name: SigningKey(bytes([number]) * 32) for number, name in enumerate(("n0", "n1", "n2", "client", "admin"), 1)}
MEMBERS = {name: KEYS[name].public_key for name in ("n0", "n1", "n2")}
SETTINGS = {"max_batch_bytes": b"1", "window": b"2", "view_timeout_ms": b"3"}
CERTIFICATES = {name: name.encode().ljust(32, b"-") for name in KEYS}
IMPERSONATED = ChannelIdentity("node", "n2", CERTIFICATES["n2"])


def identity(owner, **changes):
    fields = {
        "cluster": "c",
        "role": "peer",
        "name": owner,
        "key": KEYS[owner],
        "nonce": owner.encode().ljust(32, b"."),
        "genesis": b"g" * 32,
        "epoch": 3,
        "config_digest": b"d" * 32,
        "config": digest_settings(SETTINGS),
        "certificate_digest": CERTIFICATES[owner],
    }
    return LocalIdentity(**(fields | changes))


def channel(name, role="node"):
    return ChannelIdentity(role, name, CERTIFICATES[name])


def side(local, initiator, other, **changes):
    return Handshake(local, **({"initiator": initiator, "members": MEMBERS, "channel": other} | changes))


def pair(initiator=None, responder=None, **responder_changes):
    """Return both sides of n0 dialling n1."""
    return (
        side(initiator or identity("n0"), True, channel("n1")),
        side(responder or identity("n1"), False, channel("n0"), **responder_changes),
    )


def frames_of(encoded):
    return FrameDecoder().feed(b"".join(encoded))


def run(initiator, responder):
    """Carry frames between both sides until neither has any to send; return all of them."""
    carried = []
    to_responder, to_initiator = frames_of(initiator.start()), frames_of(responder.start())
    while to_responder or to_initiator:
        carried += to_responder + to_initiator
        answers = [out for frame in to_responder for out in responder.receive(frame)]
        to_responder = frames_of([out for frame in to_initiator for out in initiator.receive(frame)])
        to_initiator = frames_of(answers)
    return carried


def assert_refused(initiator, responder, reason, key="", refuser="responder"):
    """Both sides end without a result, one with the reason and the other with the reason it was told."""
    carried = run(initiator, responder)
    here, there = (responder, initiator) if refuser == "responder" else (initiator, responder)
    with pytest.raises(HandshakeRefused, match=reason) as refused:
        _ = here.result
    with pytest.raises(HandshakeRefused, match="the other side refused: ") as told:
        _ = there.result
    assert refused.value.reason in told.value.reason
    assert (refused.value.key, told.value.key) == (key, key)
    assert carried[-1].type is FrameType.REFUSE


def test_two_members_learn_each_other():
    initiator, responder = pair()
    carried = run(initiator, responder)
    assert initiator.result == PeerIdentity("peer", "n1", KEYS["n1"].public_key, 3)
    assert responder.result == PeerIdentity("peer", "n0", KEYS["n0"].public_key, 3)
    assert [frame.type.name for frame in carried] == ["HELLO", "HELLO", "PROOF", "PROOF"]


def test_two_members_learn_each_other_without_tls():
    initiator = side(identity("n0", certificate_digest=b""), True, None)
    responder = side(identity("n1", certificate_digest=b""), False, None)
    run(initiator, responder)
    assert (initiator.result.name, responder.result.name) == ("n1", "n0")


@pytest.mark.parametrize(("role", "name"), [("client", "client"), ("admin", "admin")])
@pytest.mark.parametrize("genesis", [b"", b"g" * 32])
def test_a_client_needs_no_membership_and_no_genesis(role, name, genesis):
    local = identity(name, role=role, genesis=genesis, config=(), config_digest=b"", epoch=0)
    initiator = side(local, True, channel("n1"))
    responder = side(identity("n1"), False, channel(name, role), accepted_roles=frozenset({role}))
    run(initiator, responder)
    assert responder.result == PeerIdentity(role, name, KEYS[name].public_key, 0)


def test_an_observer_has_a_nodes_certificate_and_no_membership():
    initiator = side(identity("n2", role="observer"), True, channel("n1"))
    members = {"n0": MEMBERS["n0"], "n1": MEMBERS["n1"]}
    responder = side(
        identity("n1"), False, channel("n2"), members=members, accepted_roles=frozenset({"peer", "observer"})
    )
    run(initiator, responder)
    assert responder.result.role == "observer"


def test_an_observer_under_a_members_name_needs_the_members_key():
    initiator = side(identity("n2", role="observer", key=KEYS["client"]), True, channel("n1"))
    responder = side(identity("n1"), False, channel("n2"), accepted_roles=frozenset({"observer"}))
    assert_refused(initiator, responder, "the key of 'n2' is not the registered one")


def test_replicas_of_different_epochs_meet_whatever_their_settings():
    initiator, responder = pair(identity("n0", epoch=2, config=digest_settings({"window": b"9"})))
    run(initiator, responder)
    assert responder.result.epoch == 2


REFUSALS = [
    pytest.param({"cluster": "other"}, "cluster 'other'; this is cluster 'c'", "", id="cluster"),
    pytest.param({"genesis": b"h" * 32}, "another genesis", "", id="genesis"),
    pytest.param({"genesis": b""}, "another genesis: none", "", id="peer without genesis"),
    pytest.param({"role": "client"}, "role 'client' is not accepted", "", id="client on the peer port"),
    pytest.param({"name": "n2"}, "the certificate of 'n0' cannot be used as 'n2'", "", id="another member's name"),
    pytest.param({"name": "n9"}, "the certificate of 'n0' cannot be used as 'n9'", "", id="an unknown name"),
    pytest.param({"key": KEYS["n2"]}, "the key of 'n0' is not the registered one", "", id="another member's key"),
    pytest.param({"key": KEYS["n1"]}, "this side's own key", "", id="the receiver's key"),
    pytest.param({"certificate_digest": b"x" * 32}, "not the certificate of the connection", "", id="certificate"),
    pytest.param({"certificate_digest": b""}, "not the certificate of the connection", "", id="no certificate"),
    pytest.param(
        {"config": digest_settings(SETTINGS | {"window": b"9"})}, "settings of epoch 3 differ", "window", id="setting"
    ),
    pytest.param(
        {"config": digest_settings({**SETTINGS, "window": b"9", "extra": b""})},
        "settings of epoch 3 differ",
        "extra, window",
        id="two settings",
    ),
    pytest.param({"config": ()}, "differ", "max_batch_bytes, view_timeout_ms, window", id="no settings"),
    pytest.param({"config_digest": b"e" * 32}, "differ", "config_digest", id="config digest alone"),
]


@pytest.mark.parametrize(("changes", "reason", "key"), REFUSALS)
def test_the_responder_refuses(changes, reason, key):
    initiator, responder = pair(identity("n0", **changes))
    assert_refused(initiator, responder, reason, key)


def test_the_initiator_refuses_a_key_that_is_not_registered():
    initiator, responder = pair(responder=identity("n1", key=KEYS["n2"]))
    assert_refused(initiator, responder, "the key of 'n1' is not the registered one", refuser="initiator")


def test_the_initiator_refuses_whom_it_did_not_dial():
    initiator = side(identity("n0"), True, channel("n1"), expected_name="n2")
    responder = side(identity("n1"), False, channel("n0"))
    assert_refused(initiator, responder, "'n1' answers at the address of 'n2'", refuser="initiator")


def test_a_valid_certificate_with_another_members_name_and_key_in_the_hello_is_refused():
    # n2 has a certificate and a key of its own and says that it is n0.
    liar = identity("n0", key=KEYS["n2"], certificate_digest=CERTIFICATES["n2"])
    initiator = side(liar, True, channel("n1"))
    responder = side(identity("n1"), False, IMPERSONATED)
    assert_refused(initiator, responder, "the certificate of 'n2' cannot be used as 'n0'")


def test_a_removed_member_is_refused():
    members = {name: MEMBERS[name] for name in ("n1", "n2")}
    initiator, responder = pair(members=members)
    assert_refused(initiator, responder, "'n0' is not a member of epoch 3")


@pytest.mark.parametrize("role", ["client", "admin"])
def test_a_clients_certificate_does_not_make_a_peer(role):
    initiator = side(identity("n0"), True, channel("n1"))
    responder = side(identity("n1"), False, channel("n0", role))
    assert_refused(initiator, responder, f"a certificate for role '{role}' cannot be used as 'peer'")


def test_a_nodes_certificate_does_not_make_an_admin():
    initiator = side(identity("n0", role="admin"), True, channel("n1"))
    responder = side(identity("n1"), False, channel("n0"), accepted_roles=frozenset({"admin"}))
    assert_refused(initiator, responder, "a certificate for role 'node' cannot be used as 'admin'")


def test_tls_on_one_side_only_is_refused():
    initiator = side(identity("n0"), True, None)
    responder = side(identity("n1"), False, None)
    assert_refused(initiator, responder, "without TLS")


def test_a_stolen_name_without_the_key_fails_at_the_proof():
    """Without TLS, a liar may send n0's name and public key; it cannot sign."""

    class Liar:
        public_key = KEYS["n0"].public_key
        sign = staticmethod(KEYS["n2"].sign)

    initiator = side(identity("n0", key=Liar(), certificate_digest=b""), True, None)
    responder = side(identity("n1", certificate_digest=b""), False, None)
    run(initiator, responder)
    with pytest.raises(HandshakeRefused, match="the proof of 'n0' is not signed by its key"):
        _ = responder.result


def test_a_small_order_key_is_refused():
    class Liar:
        public_key = b"\x01" + bytes(31)
        sign = staticmethod(lambda _: b"\x01" + bytes(63))

    local = identity("client", role="client", key=Liar())
    responder = side(identity("n1"), False, channel("client", "client"), accepted_roles=frozenset({"client"}))
    assert_refused(side(local, True, channel("n1")), responder, "small order")


def test_a_proof_cannot_be_sent_back_to_its_maker():
    initiator, responder = pair()
    (hello,) = frames_of(initiator.start())
    _, proof = frames_of(responder.receive(hello))
    responder.receive(proof)
    with pytest.raises(HandshakeRefused, match="not signed by its key"):
        _ = responder.result


def test_the_same_side_of_two_handshakes_cannot_be_exchanged():
    """A proof made as initiator does not pass as a responder's, even over the same two hellos."""
    initiator, responder = pair()
    (hello,) = frames_of(initiator.start())
    answer, proof = frames_of(responder.receive(hello))
    initiator.receive(answer)
    (own_proof,) = frames_of(initiator.receive(proof))
    crossed = side(identity("n1"), True, channel("n0"))
    crossed.receive(hello)
    crossed.receive(own_proof)
    with pytest.raises(HandshakeRefused, match="not signed by its key"):
        _ = crossed.result


def test_a_recorded_handshake_does_not_pass_a_second_time():
    initiator, responder = pair()
    recorded = [frame for frame in run(initiator, responder) if frame.type in (FrameType.HELLO, FrameType.PROOF)]
    again = side(identity("n1", nonce=b"fresh".ljust(32, b".")), False, channel("n0"))
    again.receive(recorded[0])
    again.receive(recorded[-1])
    with pytest.raises(HandshakeRefused, match="not signed by its key"):
        _ = again.result


@pytest.mark.parametrize("place", range(2, 60, 7))
def test_a_hello_changed_on_the_way_is_noticed(place):
    """A man in the middle who relays both sides cannot change what they say of themselves."""
    initiator = side(identity("n0", certificate_digest=b""), True, None)
    responder = side(identity("n1", certificate_digest=b""), False, None)
    (hello,) = frames_of(initiator.start())
    changed = bytearray(hello.payload)
    changed[-place - 34] ^= 1  # within nonce or settings, in front of the public key
    frames = responder.receive(msgspec.structs.replace(hello, payload=bytes(changed)))
    for frame in frames_of(frames):
        initiator.receive(frame)
    assert initiator.failure is not None
    with pytest.raises(WireError):
        _ = initiator.result


def test_one_middle_man_with_a_certificate_of_his_own_is_noticed():
    """n2 ends both TLS connections and relays the hellos of n0 and n1 unchanged."""
    initiator = side(identity("n0"), True, IMPERSONATED)
    responder = side(identity("n1"), False, IMPERSONATED)
    assert_refused(initiator, responder, "not the certificate of the connection")


@pytest.mark.parametrize("version", [b"\x00\x00", b"\x00\x02", b"\xff\xff", b"\x00", b""])
def test_another_version_is_refused_whatever_follows_it(version):
    _, responder = pair()
    (frame,) = frames_of([b"".join(encode_frame(FrameType.HELLO, version))])
    (answer,) = frames_of(responder.receive(frame))
    assert answer.type is FrameType.REFUSE
    with pytest.raises(HandshakeRefused, match="protocol version"):
        _ = responder.result


@given(st.binary(max_size=300), st.sampled_from(FrameType), st.booleans())
def test_no_bytes_make_a_side_raise(payload, frame_type, after_hello):
    initiator, responder = pair()
    if after_hello:
        responder.receive(frames_of(initiator.start())[0])
    (frame,) = frames_of([b"".join(encode_frame(frame_type, payload[: 60 if frame_type <= 5 else 300]))])
    responder.receive(frame)
    assert responder.failure is not None


@given(st.binary(min_size=64, max_size=64))
def test_no_made_up_signature_passes(signature):
    initiator, responder = pair()
    responder.receive(frames_of(initiator.start())[0])
    (frame,) = frames_of([b"".join(encode_frame(FrameType.PROOF, b"\x91\xc4\x40" + signature))])
    responder.receive(frame)
    assert isinstance(responder.failure, HandshakeRefused)


def test_a_second_hello_is_refused():
    initiator, responder = pair()
    (hello,) = frames_of(initiator.start())
    responder.receive(hello)
    responder.receive(hello)
    with pytest.raises(HandshakeRefused, match="unexpected HELLO"):
        _ = responder.result


def test_a_proof_before_the_hello_is_refused():
    _, responder = pair()
    (frame,) = frames_of([b"".join(encode_frame(FrameType.PROOF, b""))])
    responder.receive(frame)
    with pytest.raises(HandshakeRefused, match="unexpected PROOF"):
        _ = responder.result


def test_a_refusal_that_comes_late_takes_the_result_back():
    initiator, responder = pair()
    run(initiator, responder)
    for frame in frames_of([refuse_frame("no more places")]):
        assert initiator.receive(frame) == []
    with pytest.raises(HandshakeRefused, match="the other side refused: no more places"):
        _ = initiator.result


@pytest.mark.parametrize("payload", [b"", b"\x92\xa2\xff\xfe\xa0", b"\x92\xd9\xff"])
def test_an_unreadable_refusal_is_a_refusal(payload):
    initiator, _ = pair()
    (frame,) = frames_of([b"".join(encode_frame(FrameType.REFUSE, payload))])
    initiator.receive(frame)
    with pytest.raises(HandshakeRefused, match="without a readable reason"):
        _ = initiator.result


def test_a_refusals_words_are_made_fit_for_a_log():
    initiator, _ = pair()
    for frame in frames_of([refuse_frame("\x1b[2Jgone\n" + "x" * 10_000, "\x00key")]):
        initiator.receive(frame)
    with pytest.raises(HandshakeRefused) as caught:
        _ = initiator.result
    assert caught.value.reason.startswith("the other side refused: ?[2Jgone?x")
    assert len(caught.value.reason) < 500
    assert caught.value.key == "?key"


def test_no_result_before_the_end():
    initiator, _ = pair()
    assert not initiator.finished
    with pytest.raises(WireError, match="not finished"):
        _ = initiator.result


@pytest.mark.parametrize("changes", [{"nonce": b"short"}, {"name": ""}, {"epoch": -1}, {"genesis": bytes(33)}])
def test_an_own_hello_that_nobody_would_take_is_a_mistake_of_this_side(changes):
    with pytest.raises(ConfigurationError, match="own hello would be refused"):
        side(identity("n0", **changes), True, channel("n1"))


def test_settings_are_listed_by_name():
    listed = digest_settings({"b": b"1", "a": b"1", "c": b"2"})
    assert [key for key, _ in listed] == ["a", "b", "c"]
    assert listed[0][1] == listed[1][1] != listed[2][1]
    assert {len(digest) for _, digest in listed} == {8}


def test_the_signing_key_is_in_no_repr():
    assert KEYS["n0"].seed().hex() not in repr(identity("n0"))
    assert "key=<SigningKey" in repr(identity("n0"))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"genesis": b""},
        {"epoch": 4},
        {"config_digest": b"e" * 32},
        {"config": ()},
        {"nonce": b"another".ljust(32, b".")},
    ],
)
def test_a_proof_over_another_hello_does_not_pass(changes):
    """Each field that a client is free to choose is under its signature."""
    local = identity("client", role="client", certificate_digest=b"")
    options = {"accepted_roles": frozenset({"client"})}
    responder = side(identity("n1", certificate_digest=b""), False, None, **options)
    *_, proof = run(side(local, True, None), responder)
    assert responder.result.name == "client"

    changed = msgspec.structs.replace(local, **changes)
    again = side(identity("n1", certificate_digest=b""), False, None, **options)
    again.receive(frames_of(side(changed, True, None).start())[0])
    again.receive(proof)
    with pytest.raises(HandshakeRefused, match="not signed by its key"):
        _ = again.result
