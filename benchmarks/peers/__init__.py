"""The networks as others would write them: what ours are measured against."""
