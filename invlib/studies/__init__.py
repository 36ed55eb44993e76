"""Studies: what the checkpoint reaches, against which controls, and what protects from it."""
