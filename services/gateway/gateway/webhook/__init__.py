"""The webhook, which the analysis server calls with its answer."""
