"""The other side: which upstream, its connections, its answers."""
