"""What the handlers stand on: history in turns, waits, live calls, corrections; and all of it as one `Services`."""
