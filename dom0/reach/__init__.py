"""What of a peer can be reached from this host: ports, libvirt, the tunnel; and why not. For `vmnet doctor`."""
