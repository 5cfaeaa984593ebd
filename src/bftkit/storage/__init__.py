"""Durable storage: a write-ahead log and snapshots, as plain functions over a `Storage`.

Nothing here awaits; the runtime calls what syncs from a thread, and a simulation runs the same code over a simulated
disk.
"""
