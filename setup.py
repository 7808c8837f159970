"""One distribution, four importable packages (auto-discovery refuses such a tree)."""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["vmnet*", "hooks*", "dom0*", "controller_bridge*"]),
)
