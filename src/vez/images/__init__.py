"""Pictures in: decode, check, crop, caption."""
