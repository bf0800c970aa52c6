"""WebSockets through the data port: bytes pass both ways as they are, complete messages are read on the way."""
