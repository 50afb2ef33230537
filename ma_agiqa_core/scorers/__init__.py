"""What scores pictures: the contract, the door, and one module for each family."""
