"""The page that plays a motion space in a browser: one HTML file, from `write_page`."""
