"""Control groups v2: the delegated subtree, limits, figures."""
