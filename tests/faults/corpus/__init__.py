"""What strangers may send. Everything here is made here."""
