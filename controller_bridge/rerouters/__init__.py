"""What tells a fabric that a VM moves: one small interface, one module for each kind of fabric or controller."""
