"""Our figures against providers' own: what they billed, what passed here, and what never did."""
