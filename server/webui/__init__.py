"""The server's own pages: what runs here, a prompt box to try it, and the description of the API."""
