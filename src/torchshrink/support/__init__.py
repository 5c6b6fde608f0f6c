"""What serves every other room: files on disk, random numbers, precision, users' code, wording."""
