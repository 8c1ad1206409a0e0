"""JupyterHub: its configuration, our spawner inside it, and its REST API as the daemon uses it."""
