"""The way out: address rules, checked connections, the gate that sandboxes and builds go through."""
