"""What runs have left in their folders, for people to read: a page of one, a table of many."""
