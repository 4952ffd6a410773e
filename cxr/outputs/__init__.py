"""What a run over files leaves beside its table: a writer for each kind of output, an own module for each.

Owns which files there are and when they are whole; what is in them comes from the packages below."""
