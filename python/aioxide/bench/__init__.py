"""Compare event loops: the same work on each, round robin, every cell in a process of its own.

`python -m aioxide bench` is the short version for anybody's machine. `benchmarks/` in the repository
measures the same scenarios with more rows and a load generator in Rust.

A measuring process imports the modules that it needs (`child.py` and what it names) without importing
aioxide: `launch.py` sees to that, and relative imports keep it possible.
"""
