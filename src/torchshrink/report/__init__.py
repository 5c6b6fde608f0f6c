"""What a person looks at: the picture and the report of a path."""
