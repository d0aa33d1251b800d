"""What is wrong with captions, with how they fit their pictures, and with the set as a whole."""
