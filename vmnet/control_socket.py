"""Where the daemon listens, for those who must know it before anything is loaded: imports nothing."""

DEFAULT_SOCKET = "/run/vmnet/dom0d.sock"
SOCKET_VARIABLE = "VMNET_SOCKET"
