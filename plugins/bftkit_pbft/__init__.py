"""PBFT: Castro and Liskov's protocol with signatures, batched and pipelined, ordering digests.

Papers: "Practical Byzantine Fault Tolerance" (OSDI'99) and "Practical Byzantine Fault Tolerance and
Proactive Recovery" (TOCS'02). README.md maps their sections to functions and lists what differs.
"""
