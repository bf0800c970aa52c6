"""The billing webhook (DESIGN §8): what each track used, in segments, delivered at least once under one key each."""
