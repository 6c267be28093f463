"""What Sori is measured beside, but for the baseline: each a program of its own, and what starts it."""
