"""What a node is: its data directory and small files, its Valkey, and what parent and child say to each other."""
