"""What runs inside the throw-away container that examines a repository; imports nothing of the rest but errors and plan."""
