"""What the black-box tests share: starting the binary, making posts, reading tables, and the oracle of the promise."""
