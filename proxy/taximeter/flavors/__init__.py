"""One file per API flavor: bytes in, `Reading` out. Pure; imports core only. One line each in FLAVORS."""
