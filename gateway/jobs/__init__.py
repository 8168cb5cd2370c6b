"""Jobs: pictures classified in the background. Any gateway returns the results, given the job's id."""
