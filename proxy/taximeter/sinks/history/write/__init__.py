"""How records get into history, and out of it."""
