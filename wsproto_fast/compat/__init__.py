"""Drop-in façades for embedders of other WebSocket libraries."""
