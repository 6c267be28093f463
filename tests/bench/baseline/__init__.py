"""The single-process service that Sori replaces, written as its README describes it, mistakes included."""
