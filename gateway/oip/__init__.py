"""The Open Inference Protocol, version 2, over HTTP: what the clients of KServe and Triton speak."""
