"""Bytes to messages and back, sans-I/O: frames, envelopes, codecs, signatures and the handshake."""
