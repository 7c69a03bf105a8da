"""A page that segments pictures: served from here, or as a folder for any file server."""
