"""Compositing backends of one contract; `api` chooses among them."""
