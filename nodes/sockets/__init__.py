"""What goes through the nodes' sockets."""
