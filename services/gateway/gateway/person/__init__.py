"""A person's own data: who they are here, how well they have spoken, all that is kept of them, and its deletion."""
