"""Who may call what: keys, the table they are looked up in, and the guard in front of the use cases."""
