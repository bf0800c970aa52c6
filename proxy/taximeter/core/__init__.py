"""The pure core: values and rules. No I/O, no clock, no await, no logs; standard library and msgspec only."""
