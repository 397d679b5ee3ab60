"""The networks and input pipelines as others would write them, beside which ours are measured."""
