#!/bin/sh
# Run by vagrant as root, on the client: both hosts get what docs/install.md says.
PYTHONPATH=/vmnet:/vmnet/tests/machines exec /opt/vmnet/.venv/bin/python -B -u /vmnet/vagrant/follow_howto.py
