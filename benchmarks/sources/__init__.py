"""What keys cost, whoever is asked for them and wherever they are held: a module for each kind of source."""
