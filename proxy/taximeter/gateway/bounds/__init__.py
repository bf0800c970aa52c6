"""The most a request may cost, from its body alone. Pure."""
