"""`python -m aioxide worker`: processes that each run a `StreamWorker`, and what keeps them running.

The supervisor imports neither the Redis client nor the handler's module; its processes do.
"""
