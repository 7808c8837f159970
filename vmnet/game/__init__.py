"""A small game over UDP, to see migrations and roaming with: the application of Erickson's demonstration (2008). See docs/lab.md."""
