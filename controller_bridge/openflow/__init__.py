"""OpenFlow 1.3 and 1.4 as bytes: what is hot, encoded in bulk. Sans-IO.

Sections are those of the OpenFlow Switch Specification 1.3.5, unless it says 1.4 (1.4.1)."""
