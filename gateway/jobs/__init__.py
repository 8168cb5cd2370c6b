"""Jobs: pictures that are answered later, to whoever asks with the job's id, at any gateway."""
