"""``vmnet demo``: the bench's labs and meters, three migrations, one table and a picture."""
