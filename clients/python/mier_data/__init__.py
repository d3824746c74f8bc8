"""`mier-data`: a session's transitions as files, and data sets as transitions, by the service's URL. Extra `data`."""
