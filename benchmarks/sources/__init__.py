"""What keys cost, from each kind of source and holder: a module for each kind of source."""
