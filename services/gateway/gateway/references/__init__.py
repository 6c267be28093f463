"""Reference audio: the actor's own speech, which recordings of a token are compared with."""
