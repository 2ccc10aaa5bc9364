"""What a store keeps, and what it says of damage."""
