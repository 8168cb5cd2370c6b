"""The same model behind other serving systems, one small file each."""
