"""Files out: splat files, videos, drawings and the report."""
