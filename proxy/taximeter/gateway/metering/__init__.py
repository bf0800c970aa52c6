"""What a call used: read, counted, written down."""
