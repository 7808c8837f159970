"""Connections that the hosts' stateful filters know: they follow the VM, so that the filter at its new host lets them go on."""
