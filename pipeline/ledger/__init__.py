"""What artifacts cost to make: tokens, seconds and memory per stage; records beside the store, never part of it."""
