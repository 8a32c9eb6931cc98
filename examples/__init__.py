"""yoto-codec in larger programs; every file says at its top how it is run."""
