"""Side-by-side benchmarks: ours and a peer in one run, interleaved, judged by their ratio (docs/performance.md)."""
