"""The Redis counters: what each workspace used, exactly once, by scripts."""
