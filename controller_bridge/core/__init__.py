"""The controller's decisions: who is where, which switch is next to which, and what each switch's table is to say. Pure."""
