"""What gateway and worker share: the wire contract, and the brokers behind one interface."""
