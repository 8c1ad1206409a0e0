"""Podman behind awaitable calls: containers, images, control groups."""
