"""Pictures from a folder, an archive, addresses, Wikimedia Commons or Openverse, with a record of where each is from."""
