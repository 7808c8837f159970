"""Hosts that are full Debian machines under QEMU: image, boot, ssh, and the steps of the install how-to. See docs/lab.md."""
