"""The paper's figures and tables, each a small script over configs."""
