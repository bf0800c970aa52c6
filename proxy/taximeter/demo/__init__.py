"""`taximeter demo`: a made-up provider, real SDK traffic, both sides' bills compared. Knows nothing of the meters."""
