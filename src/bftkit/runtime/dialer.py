"""Reach somebody: resolve, connect, and shake hands."""

from collections.abc import Mapping

import anyio

from bftkit.errors import HandshakeRefused
from bftkit.runtime.connection import FramedConnection, NetworkTuning
from bftkit.runtime.credentials import CredentialFiles
from bftkit.runtime.endpoint import Endpoint, HelloFactory
from bftkit.runtime.listener import host_and_port


async def dial(endpoint: Endpoint, address: str, expected_name: str | None) -> FramedConnection:
    """Return a connection to "host:port"; the name is resolved anew each time.

    Raises:
        HandshakeRefused: nobody answers there, or it is somebody else, or one side does not want the other.
    """
    host, port = host_and_port(address)
    timeout_ms = endpoint.tuning.dial_timeout_ms
    try:
        with anyio.fail_after(timeout_ms / 1_000):
            stream = await anyio.connect_tcp(host, port)
    except TimeoutError:
        raise HandshakeRefused(f"no connection within {timeout_ms} ms") from None
    except OSError as error:
        raise HandshakeRefused(f"cannot connect: {_connect_reason(error)}") from error
    return await endpoint.establish(stream, address, initiator=True, expected_name=expected_name)


async def connect_client(
    address: str,
    hello: HelloFactory,
    members: Mapping[str, bytes],
    *,
    expected_name: str | None = None,
    credentials: CredentialFiles | None = None,
    tuning: NetworkTuning | None = None,
) -> FramedConnection:
    """Connect a client or an operator to the client port of one replica.

    `hello` returns a `LocalIdentity` with the cluster, the role "client" or "admin", the name and the signing key (and
    the genesis digest if it is known; the nonce is filled in here, ``nonce=b""`` will do). With credentials, role and
    name must be those of the certificate. `members` maps the replicas' names to their public keys: whoever answers must
    be one of them, and `expected_name` if that is given.

    Use it like this, with one connection to each replica::

        connection = await connect_client(address, hello, members, expected_name="n0", credentials=files)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.run)      # writes, pings, watches; closes the socket when it ends
            connection.send(encode_frame(FrameType.REQUEST, payload))   # at once; False: dropped (full, or ended)
            try:
                while True:
                    for frame in await connection.receive():            # REPLY and ADMIN_REPLY frames
                        ...
            except WireError:
                ...                               # the connection has ended: `connection.reason`; dial again
            connection.close("done")              # or cancel the task group

    Start `run` before the first `receive`; one task at a time may `receive`. A connection that ends is not dialled
    again here: the caller does so, with a pause. The caller of a connection that was never run closes it by running it
    after `close`.

    Raises:
        HandshakeRefused: nobody answers there, or it is somebody else, or one side does not want the other.
        ConfigurationError: the credentials cannot be used.
    """
    endpoint = Endpoint(hello, members, credentials=credentials, tuning=tuning)
    return await dial(endpoint, address, expected_name)


def _connect_reason(error: OSError) -> str:
    """Return what the system said, of one attempt or of several."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    found = cause if isinstance(cause, OSError) else error
    return found.strerror or str(found)
