"""The page at /ui: what a person sees of sessions and fleet, by the use cases that all transports call."""
