"""Makes the page of mode=view."""
