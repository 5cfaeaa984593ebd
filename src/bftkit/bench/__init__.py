"""Measuring a cluster from the outside."""
