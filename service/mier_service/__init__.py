"""The service: an imperative shell around `mier` that adapts policies and acts with them, over HTTP and gRPC."""
