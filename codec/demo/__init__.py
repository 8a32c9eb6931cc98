"""The page to try the codec on, and its server."""
