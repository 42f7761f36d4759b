"""What every package may import: data types, errors, and components by name."""
