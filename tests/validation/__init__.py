"""Whether the comparison says what a listener would, of sentences and voices made by espeak-ng."""
