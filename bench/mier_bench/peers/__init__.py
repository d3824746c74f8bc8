"""What ours is timed beside: servers, each a program that runs by itself, some in an environment of their own.

Nothing here imports anything of the project.
"""
