"""Raft: Ongaro's protocol with pre-vote, check-quorum, leadership transfer and linearizable reads, ordering digests.

Source: Ongaro, "Consensus: Bridging Theory and Practice" (thesis, Stanford 2014). README.md maps its sections to
functions and lists what differs.
"""
