"""What keys cost, wherever they are held and whoever is asked for them."""
