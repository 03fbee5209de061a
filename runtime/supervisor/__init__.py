"""Desired state: the store, the reconciler, the node and the door."""
