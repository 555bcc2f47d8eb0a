"""Labs, on the machine itself: these tests bring up their own, so they are not marked "lab"."""
