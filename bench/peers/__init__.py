"""The same model behind other serving systems."""
