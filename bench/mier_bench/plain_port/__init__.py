"""The paper's algorithm written down plainly, task by task: the peer of our batched one.

What a reader of the paper would write in PyTorch first. Only the clamp of the log variance and the normalisation, which
the paper leaves open, follow ours, so that both compute the same numbers (checked before anything is timed).
"""
