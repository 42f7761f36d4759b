"""Networks whose weights others trained, and layers that several models share."""
