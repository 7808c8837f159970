"""Virtual routers: the data plane of a router VM in a namespace of this host, and what follows it through a migration."""
