"""One file a verb: parse, call one operation, show one result."""
