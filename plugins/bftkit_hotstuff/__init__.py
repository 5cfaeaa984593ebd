"""HotStuff with Jolteon's two-chain rules, or with the three-chain rules of the first paper, ordering digests.

Papers: Gelashvili et al., "Jolteon and Ditto" (FC'22), and Yin et al., "HotStuff: BFT Consensus with Linearity and
Responsiveness" (PODC'19). README.md maps their sections to functions and lists what differs.
"""
