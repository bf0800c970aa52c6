"""From bytes to whole events: bodies, lines, frames, encodings. Pure."""
