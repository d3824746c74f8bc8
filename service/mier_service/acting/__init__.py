"""An observation in, an action out, in time."""
