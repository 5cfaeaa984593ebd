"""The public test kit: a disk that forgets, the smallest engine, and clusters that run from a seed in virtual time."""
