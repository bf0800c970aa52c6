"""Usage objects read into one convention. Pure."""
