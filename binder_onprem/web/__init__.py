"""What people and programs see: pages, the event stream, the API. Nothing in here decides anything; `launch` does."""
