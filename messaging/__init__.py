"""What gateway and worker share: the broker interface, the wire contract, one file per broker."""
