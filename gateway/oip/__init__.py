"""The Open Inference Protocol (KServe V2) over HTTP, as KServe and Triton clients speak it."""
