"""Kubernetes behind awaitable calls: the namespace that sessions are pods of, and what a pod of ours is made of."""
