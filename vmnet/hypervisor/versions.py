"""Versions as libvirt writes them. Pure."""

from __future__ import annotations


def version(number: int) -> str:
    """libvirt's number for a version, as people write it: 9000000 is 9.0.0."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
