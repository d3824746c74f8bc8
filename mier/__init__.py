"""The numeric core of MIER: model identification and experience relabelling.

Values in, values out: no sockets, file paths, threads, clock or logging in here.
"""
