"""Training: from a text corpus to a checkpoint that `Inverter.load` opens."""
