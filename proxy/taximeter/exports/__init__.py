"""What history holds in the formats of others: FOCUS charges, and files by month in a folder or a bucket."""
