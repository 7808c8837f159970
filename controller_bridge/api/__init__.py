"""What daemons and people ask the controller for: frames, identities and connections are those of :mod:`vmnet.peer`."""
